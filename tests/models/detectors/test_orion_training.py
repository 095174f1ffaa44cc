"""A whole training of OrionStudent: the total is the sum that is documented, and the backbone alone moves."""

from __future__ import annotations

from pathlib import Path

import orion_models as orion
import pytest
import torch
from engine_fixtures import shared, teacher_of
from engine_runs import Run, start
from orion_runs import WEIGHTS, WatchTask, kd_config

from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.weights.reading.io import hash_tensors, read_checkpoint

__all__ = ['shared']
ALPHA = [0.8, 0.7, 0.65, 0.6]
STEPS = 4
"""Of an epoch."""
WATCH = dict(type='mmengine.WatchTask')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('orion')


@pytest.fixture(scope='module')
def teacher(folder: Path) -> str:
    return orion.save_teacher(folder)


@pytest.fixture(scope='module')
def whole(shared: Path, folder: Path, teacher: str) -> Run:
    config = kd_config(shared, folder, teacher)
    config.custom_hooks.append(WATCH)
    return start(config)


def tasks(run: Run) -> dict[int, float]:
    return next(hook for hook in run.runner.hooks if isinstance(hook, WatchTask)).tasks


def require_documented_total(run: Run, step: int) -> None:
    """Compute (1 - alpha) * task + alpha * (0.5 f + 0.3 a + 0.2 o) anew, the task from a pass of its own."""
    logged, alpha = run.steps[step], ALPHA[step // STEPS]
    distances = sum(weight * logged[f'kd_{name}_raw'] for name, weight in WEIGHTS.items())
    assert all(logged[f'kd_{name}_raw'] > 0 for name in WEIGHTS)
    assert logged['loss'] == pytest.approx((1 - alpha) * tasks(run)[step] + alpha * distances, rel=1e-5)
    assert logged['kd_task_weight'] == pytest.approx(1 - alpha)
    for name, weight in WEIGHTS.items():
        assert logged[f'kd_{name}_weight'] == pytest.approx(alpha * weight)


@pytest.mark.parametrize('step', [0, 4, 7, 8, 15], ids=['first', 'second epoch', 'its last', 'middle', 'last'])
def test_the_total_is_what_is_documented(whole: Run, step: int) -> None:
    assert len(whole.steps) == 4 * STEPS
    require_documented_total(whole, step)


def test_a_resumed_run_goes_on_with_the_same_total(
    whole: Run, shared: Path, folder: Path, teacher: str, tmp_path: Path
) -> None:
    cut = start(kd_config(shared, folder, teacher, work_dir=str(tmp_path)), stop=('before_train_iter', 10))
    assert max(cut.steps) == 9
    config = kd_config(shared, folder, teacher, work_dir=str(tmp_path))
    config.custom_hooks.append(WATCH)
    resumed = start(config, resume='auto')
    assert sorted(resumed.steps) == list(range(8, 16))
    for step in resumed.steps:
        require_documented_total(resumed, step)
        assert resumed.steps[step]['loss'] == whole.steps[step]['loss']
    assert hash_tensors(resumed.model.state_dict()) == hash_tensors(whole.model.state_dict())


def test_frozen_tensors_are_bit_identical_in_model_and_checkpoint(whole: Run, teacher: str) -> None:
    before = torch.load(teacher, weights_only=True)['state_dict']
    saved = read_checkpoint(whole.folder / 'epoch_4.pth')
    for weights in (whole.model.state_dict(), saved['state_dict']):
        others = [name for name in weights if not name.startswith('backbone.')]
        assert {name.split('.')[0] for name in others} == {'neck', 'bbox_head'}
        assert any('running_var' in name for name in others)
        for name in others:
            assert torch.equal(weights[name], before[name]), name
    own = dict(teacher_of(whole.model).named_parameters())
    assert hash_tensors(own) == hash_tensors({name: before[name] for name in own})
    assert not any(module.training for module in (*whole.model.neck.modules(), *whole.model.bbox_head.modules()))


def test_the_backbone_began_as_the_teachers_slices_and_moved(whole: Run, folder: Path, teacher: str) -> None:
    weights = torch.load(teacher, weights_only=True)['state_dict']
    backbone = {
        name.removeprefix('backbone.'): value for name, value in weights.items() if name.startswith('backbone.')
    }
    start_weights = prune_state(PruningPlan.read(folder / 'plan.json'), backbone)
    parameters = dict(whole.model.backbone.named_parameters())
    assert all(value.shape == start_weights[name].shape for name, value in parameters.items())
    assert not any(torch.equal(value, start_weights[name]) for name, value in parameters.items())
    difference = max(float((value - start_weights[name]).abs().max()) for name, value in parameters.items())
    assert difference < 16 * 1.1e-3 * 2  # of AdamW's steps; another start would be farther off


def test_the_optimizer_holds_the_backbone_alone(whole: Run) -> None:
    held = {id(value) for group in whole.runner.optim_wrapper.param_groups for value in group['params']}
    assert held == {id(value) for value in whole.model.backbone.parameters()}
    saved = read_checkpoint(whole.folder / 'epoch_4.pth')['optimizer']
    assert len(saved['state']) == len(held)
