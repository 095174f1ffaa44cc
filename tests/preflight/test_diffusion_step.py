from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from wan_fixtures import pipeline

from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.preflight import diffusion_step
from kdplugin.preflight.diffusion_step import too_large
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.verify import verify

__all__ = ['pipeline']
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(pipeline: Path, tmp_path: Path) -> Config:
    """The tiny config that ships, with a teacher whose experts are random."""
    whole = Config.fromfile(ROOT / 'configs/wan/wan-lite_tiny.py')
    whole.work_dir = str(tmp_path / 'work')
    whole.model.teacher.path = whole.custom_hooks[0].source = str(pipeline)
    whole.model.text_encoder.cache = str(tmp_path / 'text')
    return whole


def notes(found: Findings, where: str) -> list[str]:
    return [one.message for one in found if (one.level, one.where) == ('note', where)]


def test_the_tiny_config_takes_a_step_and_leaves_nothing(config: Config, tmp_path: Path) -> None:
    found = verify(config)
    assert [one for one in found if one.level != 'note'] == []
    assert found.broken == []
    step = notes(found, 'training step')
    assert step[0].startswith('ran on a training batch: total loss')
    assert [line.split()[0] for line in step[1:]] == ['loss_velocity', 'loss_kd_last']
    assert float(step[2].split()[1]) > 0
    teacher = WanTeacher(config.model.teacher.path)
    (said,) = notes(found, 'model.teacher')
    assert said.startswith(f'{teacher.tensors} tensors of the right names and shapes, {teacher.parameters:,}')
    assert '100.0 % of the parameters loaded' in notes(found, 'custom_hooks')[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('changes', 'level', 'where', 'says'),
    [
        ({'model.frozen': ['blocks', 'patch_embedding', 'condition_embedder']}, 'error', 'model.pairs.last',
         'Expected a gradient from student tap'),
        ({'model.pairs.last.teacher_tap': 'blocks.3.attn1.to_out'}, 'error', 'model.pairs.last', 'Expected'),
        ({'model.pairs.last.student_tap': 'blocks.1.attn1.to_out'}, 'error', 'model.pairs.last', 'Expected'),
        ({'model.pairs.last.weight': 1e5}, 'warning', 'model.pairs.last.weight', 'times the task'),
        ({'model.frozen': ['block']}, 'error', 'model.frozen', "Did you mean 'blocks'"),
        ({'model.pairs.last.weight': 0}, 'note', 'model.pairs.last', 'has weight 0'),
        ({'model.pairs.last.stop_after': 900}, 'warning', 'model.pairs.last.stop_after', 'a stop within 500'),
        ({'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(lr_mult=0.1)})}, 'warning',
         'optim_wrapper.paramwise_cfg.custom_keys.backbone', 'which is in none'),
    ],
)  # fmt: skip
def test_mistakes_of_a_step(config: Config, changes: dict[str, Any], level: str, where: str, says: str) -> None:
    config.merge_from_dict(changes)
    found = verify(config)
    assert any((one.level, one.where) == (level, where) and says in one.message for one in found), list(found)


def test_a_teacher_with_a_gradient_would_be_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    original = WanTeacher._expert

    def moving(self: WanTeacher, name: str) -> Any:
        return original(self, name).requires_grad_()

    monkeypatch.setattr(WanTeacher, '_expert', moving)
    assert any('Expected no gradient at the teacher' in one.message for one in verify(config).errors)


def test_no_step_before_the_config_is_right(config: Config) -> None:
    config.model.teacher.path = 'gone'
    found = verify(config)
    assert [one.where for one in found.errors] == ['model.teacher.path']
    assert notes(found, 'training step') == ['not checked: one step, before the model is right.']


def test_a_teacher_larger_than_the_machine_is_not_loaded(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion_step, 'SHARE', 1e-9)
    monkeypatch.setattr(WanTeacher, '_expert', lambda *_: pytest.fail('it was loaded'))
    (said,) = notes(verify(config), 'training step')
    assert 'tools/production_test.py --teacher' in said
    monkeypatch.undo()
    assert not too_large(Findings(), WanTeacher(config.model.teacher.path), {})
