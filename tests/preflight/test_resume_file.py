from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor
from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.resume_file import checked_resume

LOOP = dict(type='IterBasedTrainLoop', max_iters=10)


def judged(file: Path, **content: Any) -> list[tuple[str, str]]:
    resume = content.pop('resume', True)
    torch.save(content, file)
    found = Findings()
    config = Config(dict(train_cfg=LOOP, load_from=str(file), resume=resume))
    checked_resume(found, config, build(segmentor(), initialise=False))
    return [(one.level, one.message) for one in found]


@pytest.fixture(scope='module')
def weights() -> dict[str, torch.Tensor]:
    return build(segmentor(), initialise=False).state_dict()


def test_a_checkpoint_of_the_run_is_no_finding(weights: Any, tmp_path: Path) -> None:
    assert judged(tmp_path / 'a.pth', state_dict=weights, optimizer={}, meta=dict(iter=4)) == []


def test_what_cannot_be_resumed(weights: Any, tmp_path: Path) -> None:
    file = tmp_path / 'a.pth'
    ((_, message),) = judged(file, state_dict=weights, meta=dict(iter=4))
    assert 'has no optimizer' in message
    ((_, message),) = judged(file, state_dict=weights, optimizer={}, meta=dict(iter=10))
    assert 'Nothing is left to train' in message
    less = dict(weights)
    less.pop('backbone.conv1.weight')
    ((level, message),) = judged(file, state_dict=less, optimizer={}, meta={})
    assert level == 'error'
    assert "1 tensors are missing, 0 of another shape and 0 left over, such as ['backbone.conv1.weight']" in message


def test_weights_to_begin_with_fit_in_part(weights: Any, tmp_path: Path) -> None:
    file = tmp_path / 'a.pth'
    assert judged(file, state_dict=weights, resume=False) == []
    other = {**weights, 'decode_head.conv_seg.weight': torch.zeros(3, 8, 1, 1)}
    ((level, message),) = judged(file, state_dict=other, resume=False)
    assert level == 'warning'
    assert 'decode_head.conv_seg.weight' in message
    ((level, message),) = judged(file, state_dict={'x': torch.zeros(1)}, resume=False)
    assert level == 'error'
    assert 'none of its 1 tensors fits' in message


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(b'no checkpoint')
    found = Findings()
    config = Config(dict(load_from=str(tmp_path / 'a.pth')))
    checked_resume(found, config, build(segmentor(), initialise=False))
    assert [one.level for one in found] == ['error']
    assert 'damaged or not a PyTorch file' in found[0].message
