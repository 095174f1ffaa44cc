from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.initial_weights import check_pretrained_fits


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The weights of a segmentor."""
    file = tmp_path / 'whole.pth'
    torch.save({'state_dict': build(segmentor()).state_dict()}, file)
    return file


def look(width: int = 8, **init: Any) -> Findings:
    settings = segmentor(width)
    settings['backbone']['init_cfg'] = dict(type='Pretrained', **{key: str(value) for key, value in init.items()})
    student: Any = build(settings, initialise=False)
    student.init_weights()
    found = Findings()
    check_pretrained_fits(found, 'model.student', student)
    return found


def test_weights_that_arrive_are_no_finding(whole: Path, tmp_path: Path) -> None:
    assert look(checkpoint=whole, prefix='backbone.') == []
    alone = tmp_path / 'alone.pth'
    torch.save(build(segmentor()).backbone.state_dict(), alone)
    assert look(checkpoint=alone) == []


@pytest.mark.parametrize(
    ('init', 'width', 'cure'),
    [
        ({}, 8, "Write prefix='backbone.'."),
        (dict(prefix='backbone.'), 16, 'which has (16, 3, 7, 7): give a file of this depth and width'),
    ],
)
def test_weights_of_which_none_arrives_are_an_error(whole: Path, init: dict[str, str], width: int, cure: str) -> None:
    found = look(width, checkpoint=whole, **init)
    assert [(one.level, one.where) for one in found] == [('error', 'model.student.backbone.init_cfg')]
    assert f'Expected weights of {whole} in this module but none of its tensors arrived.' in found[0].message
    assert cure in found[0].message


def test_a_file_of_its_own_needs_no_prefix(tmp_path: Path) -> None:
    alone = tmp_path / 'alone.pth'
    state = build(segmentor()).backbone.state_dict()
    torch.save({**state, 'backbone.x': torch.zeros(1)}, alone)  # mmengine refuses a prefix that no name has
    assert 'Leave out prefix.' in look(checkpoint=alone, prefix='backbone.')[0].message


def test_a_file_of_another_model_is_told_by_its_names(tmp_path: Path) -> None:
    other = tmp_path / 'other.pth'
    torch.save({'blocks.0.weight': torch.zeros(2, 2)}, other)
    assert "Its names, such as 'blocks.0.weight', are not those" in look(checkpoint=other)[0].message


def test_a_part_of_the_weights_is_a_warning(whole: Path) -> None:
    content = torch.load(whole, weights_only=True)
    content['state_dict'] = {name: value for name, value in content['state_dict'].items() if 'layer4' not in name}
    torch.save(content, whole)
    (finding,) = look(checkpoint=whole, prefix='backbone.')
    assert finding.level == 'warning'
    assert 'arrived. Check that depth and width are those of the file.' in finding.message
