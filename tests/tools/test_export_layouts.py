"""tools/export_student.py --layout: ORION's file from a student's checkpoint, and what timm cannot have."""

from __future__ import annotations

from pathlib import Path

import export_student
import orion_models as orion
import pytest
import torch
from engine_fixtures import build
from mmengine.config import Config

from kdplugin.pruning.plan import PruningPlan

PLAN = PruningPlan(((1, 3), (0, 2)), (tuple(range(85)),) * 2, num_heads=4, hidden=85, head_dim=8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A pruned student's checkpoint a.pth, its plan.json and config.py, and a config without windows."""
    model = orion.student('teacher.pth', 2)
    torch.save({'state_dict': build(model, initialise=False).state_dict()}, tmp_path / 'a.pth')
    PLAN.write(tmp_path / 'plan.json')
    Config(dict(default_scope='mmdet', model=model)).dump(tmp_path / 'config.py')
    flat = orion.student('teacher.pth', 2, backbone=orion.backbone(2, window_block_indexes=()))
    Config(dict(default_scope='mmdet', model=flat)).dump(tmp_path / 'flat.py')
    return tmp_path


def call(folder: Path, *words: str) -> int:
    return export_student.main(
        [str(folder / 'a.pth'), str(folder / 'b.pth'), '--plan', str(folder / 'plan.json'), *words]
    )


def test_orions_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(files, '--layout', 'orion') == 0
    assert '4 pruned heads filled with zeros' in capsys.readouterr().out
    weights = torch.load(files / 'b.pth', weights_only=True)['state_dict']
    assert weights['img_backbone.blocks.0.attn.q_proj.weight'].shape == (32, 32)
    assert not any(name.startswith(('neck', 'bbox_head')) for name in weights)


def test_timm_has_no_windows(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(files, '--layout', 'timm', '--config', str(files / 'config.py')) == 1
    assert "Expected a backbone without windows for timm's layout but blocks [0]" in capsys.readouterr().err
    assert call(files, '--layout', 'timm') == 1
    assert 'Expected --config with --layout timm' in capsys.readouterr().err
    assert call(files, '--layout', 'timm', '--config', str(files / 'flat.py')) == 0
    assert 'blocks.0.mlp.fc1_g.weight' in torch.load(files / 'b.pth', weights_only=True)['state_dict']


def test_a_plan_without_a_layout_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(files) == 1
    assert 'Expected --layout beside --plan but got none' in capsys.readouterr().err
