from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor
from mmengine.config import Config
from mmrazor_recipes import CWD, mapping, recipe

from kdplugin.errors import CheckpointError
from kdplugin.migration.mmrazor_checkpoint import migrate_checkpoint, plain_student
from kdplugin.reports.export_report import strict_load


def save(path: Path, **more: Any) -> dict[str, torch.Tensor]:
    """Save what MMRazor saves; returns the student's tensors."""
    student = build(segmentor()).state_dict()
    weights = {f'architecture.{key}': value for key, value in student.items()}
    weights |= {f'teacher.{key}': value for key, value in build(segmentor(16)).state_dict().items()}
    weights |= {'distiller.connectors.c.conv_module.conv.weight': torch.ones(3, 2, 1, 1), 'mutator.x': torch.ones(5)}
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('a', 'b')), cfg='secret'), state_dict=weights, **more), path)
    return student


def test_the_student_loads_strictly_into_the_plain_model(tmp_path: Path) -> None:
    student = save(tmp_path / 'in.pth', optimizer=dict(state={}), ema_state_dict={})
    notes = migrate_checkpoint(tmp_path / 'in.pth', tmp_path / 'out.pth')
    out = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert out['state_dict'].keys() == student.keys()
    assert all(torch.equal(out['state_dict'][key], value) for key, value in student.items())
    assert out['meta'] == dict(dataset_meta=dict(classes=('a', 'b')))
    config = plain_student(recipe(dict(loss_x=CWD), dict(loss_x=mapping())))
    assert f'{len(student)} of {len(student)} tensors' in strict_load(config, tmp_path / 'out.pth')
    assert [(note.kind, note.where) for note in notes] == [
        ('converted', 'student'),
        ('kept', 'student'),
        ('left out', 'teacher'),
        ('left out', 'connectors'),
        ('left out', 'other tensors'),
        ('left out', 'ema_state_dict, optimizer'),
    ]
    assert notes[3].message.startswith('1 tensors, 6 values; c: ')
    assert notes[4].message == '1 tensors, 5 values: mutator.x.'


def test_only_the_first_architecture_of_a_name_is_a_prefix(tmp_path: Path) -> None:
    torch.save({'module.architecture.architecture.a': torch.ones(2)}, tmp_path / 'in.pth')
    migrate_checkpoint(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert list(torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']) == ['architecture.a']


def test_a_plain_config_stays_what_it_is() -> None:
    config = Config(dict(model=segmentor()))
    assert plain_student(config) is config


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        ('plain.pth', 'out.pth', r"begin with 'architecture\.' in .*plain\.pth but its names begin with \['backbone'"),
        ('plain.pth', 'out.bin', r'Expected OUT to end in \.pth or \.safetensors but got .*out\.bin\. Rename it\.'),
        ('plain.pth', 'plain.pth', r'Expected OUT to be another file but got the checkpoint .*plain\.pth itself'),
    ],
)
def test_what_cannot_be_migrated_is_an_error(tmp_path: Path, source: str, target: str, message: str) -> None:
    torch.save({'state_dict': build(segmentor()).state_dict()}, tmp_path / 'plain.pth')
    with pytest.raises(CheckpointError, match=message):
        migrate_checkpoint(tmp_path / source, tmp_path / target)
