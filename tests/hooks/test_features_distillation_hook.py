"""What a Runner adds to a step: schedules by its counters, accumulation, mixed precision, compiled steps, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL, all_tensors, distilled, feature_and_logit_pairs, save_weights, segmentor
from engine_runs import Run, run_config, start
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch._dynamo.utils import counters

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.errors import CheckpointError, ConfigError, NumericError
from kdplugin.hooks.distillation_hook import check_teachers
from kdplugin.weights.reading.io import hash_file, hash_tensors, read_checkpoint

FLAT = dict(tap='decode_head.conv_seg', loss=KL)
DEEP = dict(tap='backbone', loss=COSINE)


@HOOKS.register_module()
class AdaptersPerStep(Hook):
    """Keep a hash of the adapters after each iteration."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.seen.append(hash_tensors(adapters_of(runner.model).state_dict()))


@HOOKS.register_module()
class BreakAdapters(Hook):
    """Make a term that is not finite before an iteration."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.at:
            nn.init.constant_(next(adapters_of(runner.model).parameters()), float('nan'))


def changing(**more: Any) -> dict[str, Any]:
    """Return pairs of every kind: one on a schedule, one that is calibrated and stops."""
    return dict(
        flat=dict(FLAT, weight=dict(kind='cosine', start=2, stop=0.5), warmup=3),
        deep=dict(DEEP, target_ratio=0.4, calibration_iters=3, stop_after=5, **more),
    )


@pytest.fixture(scope='module')
def whole(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = distilled(shared, changing(), alpha=dict(kind='linear', start=0.8, stop=0.4))
    return start(run_config(shared, tmp_path_factory.mktemp('whole'), model, iters=7, ema=True))


def test_weights_follow_the_counters_of_the_runner(whole: Run) -> None:
    steps = whole.steps
    assert [steps[n]['kd_task_weight'] for n in (0, 3, 6)] == pytest.approx([0.2, 0.4, 0.6])
    assert [steps[n]['kd_flat_weight'] for n in (0, 3, 6)] == pytest.approx([0.8 * 2 / 3, 0.6 * 1.25, 0.4 * 0.5])
    assert [n for n in steps if steps[n]['kd_deep_weight'] > 0] == [0, 1, 2, 3, 4]
    weights = [steps[n]['kd_deep_weight'] / (0.8 - 0.4 * n / 6) for n in range(5)]
    assert weights[2] == pytest.approx(weights[3]) == pytest.approx(weights[4])
    assert weights[0] != pytest.approx(weights[2])
    share = [steps[n]['kd_task'] / steps[n]['kd_task_weight'] for n in range(3)]
    assert weights[2] == pytest.approx(0.4 * sum(share) / sum(steps[n]['kd_deep_raw'] for n in range(3)), rel=1e-5)


@pytest.mark.parametrize('at', [2, 4, 6])
def test_resume_goes_on_with_schedule_and_calibration(whole: Run, shared: Path, tmp_path: Path, at: int) -> None:
    """Cut within the calibration, after it, and after the end of a pair: bit for bit as without interruption."""

    def recipe() -> Any:
        model = distilled(shared, changing(), alpha=dict(kind='linear', start=0.8, stop=0.4))
        return run_config(shared, tmp_path, model, iters=7, ema=True)

    start(recipe(), stop=('before_train_iter', at))
    again = start(recipe(), resume='auto')
    assert again.steps == {step: losses for step, losses in whole.steps.items() if step >= at}
    assert hash_tensors(all_tensors(again.model)) == hash_tensors(all_tensors(whole.model))


def test_checkpoints_say_what_was_calibrated(whole: Run) -> None:
    state = read_checkpoint(whole.folder / 'iter_7.pth')['kdplugin']['state']
    found = state['calibrations']['deep']
    assert found['seen'] == 3
    assert found['found'] * (0.8 - 0.4 * 4 / 6) == pytest.approx(whole.steps[4]['kd_deep_weight'], rel=1e-6)


def test_epochs_are_those_of_the_runner(shared: Path, tmp_path: Path) -> None:
    """Eight images, two to a batch, make four iterations an epoch."""
    alpha = [dict(start=0.8, end=1, by_epoch=True), dict(kind='linear', start=0.7, stop=0.6, by_epoch=True)]
    pairs = dict(flat=dict(FLAT, stop_after=2, by_epoch=True))
    run = start(run_config(shared, tmp_path, distilled(shared, pairs, alpha=alpha), epochs=3, save_every=3))
    found = [round(run.steps[n]['kd_task_weight'], 6) for n in range(12)]
    assert found == [0.2] * 4 + [0.3] * 4 + [0.4] * 4
    assert [run.steps[n]['kd_flat_weight'] > 0 for n in range(12)] == [True] * 8 + [False] * 4


def test_epochs_of_a_training_by_iterations_are_an_error(shared: Path, tmp_path: Path) -> None:
    pairs = dict(flat=dict(FLAT, stop_after=2, by_epoch=True))
    with pytest.raises(ConfigError, match='Expected a training by epochs for a weight with by_epoch=True'):
        start(run_config(shared, tmp_path, distilled(shared, pairs), iters=1))


def test_accumulated_steps_move_adapters_together_and_count_one_by_one(shared: Path, tmp_path: Path) -> None:
    pairs = dict(deep=dict(DEEP, weight=dict(kind='linear', start=1, stop=0.4)))
    config = run_config(
        shared, tmp_path, distilled(shared, pairs), iters=4, accumulate=2,
        hooks=(dict(type='mmengine.AdaptersPerStep'),),
    )  # fmt: skip
    run = start(config)
    seen = next(hook for hook in run.runner.hooks if isinstance(hook, AdaptersPerStep)).seen
    assert seen[0] != seen[1] == seen[2] != seen[3]
    assert [run.steps[n]['kd_deep_weight'] for n in range(4)] == pytest.approx([1, 0.8, 0.6, 0.4])


def test_mixed_precision_trains_adapters_in_float32(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, distilled(shared, feature_and_logit_pairs()), iters=2)
    config.optim_wrapper.type = 'kdplugin.CPUAmpOptimWrapper'
    half = start(config)
    whole = start(run_config(shared, tmp_path / 'whole', distilled(shared, feature_and_logit_pairs()), iters=2))
    for name in ('kd_feature_raw', 'kd_logits_raw'):
        assert half.steps[0][name] == pytest.approx(whole.steps[0][name], rel=0.05)
        assert half.steps[0][name] != whole.steps[0][name]
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
    assert hash_tensors(adapters_of(half.model).state_dict()) != hash_tensors(adapters_of(whole.model).state_dict())


@pytest.mark.slow
def test_a_compiled_step_distils_alike_and_is_compiled_once(shared: Path, tmp_path: Path) -> None:
    """The Runner's ``compile`` key."""
    model = distilled(shared, feature_and_logit_pairs(), segmentor(dropout=0.0))
    plain = start(run_config(shared, tmp_path / 'plain', model, iters=4))
    counters.clear()
    config = run_config(shared, tmp_path, model, iters=4)
    config.compile = dict(backend='eager')
    graphs: list[int] = []

    @HOOKS.register_module(force=True)
    class CountGraphs(Hook):
        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            graphs.append(counters['stats']['unique_graphs'])

    config.custom_hooks.append(dict(type='mmengine.CountGraphs'))
    run = start(config)
    assert graphs[0] > 0
    assert graphs[1] == graphs[3]
    for step, losses in plain.steps.items():
        assert run.steps[step] == pytest.approx(losses, rel=1e-3)


def test_a_term_that_is_not_finite_ends_the_run_with_its_place(shared: Path, tmp_path: Path) -> None:
    """Nothing broken is saved."""
    hooks = (dict(type='mmengine.BreakAdapters', at=2),)
    config = run_config(shared, tmp_path, distilled(shared, dict(deep=DEEP)), iters=4, save_every=1, hooks=hooks)
    with pytest.raises(NumericError, match=r"at pair 'deep' \('backbone'\) at iteration 2"):
        start(config)
    assert (tmp_path / 'iter_2.pth').is_file()
    assert not (tmp_path / 'iter_3.pth').exists()


def test_a_term_that_may_be_skipped_does_not_end_the_run(shared: Path, tmp_path: Path) -> None:
    hooks = (dict(type='mmengine.BreakAdapters', at=2),)
    pairs = dict(deep=dict(DEEP, on_nan='skip'), flat=FLAT)
    run = start(run_config(shared, tmp_path, distilled(shared, pairs), iters=4, hooks=hooks))
    assert [run.steps[n]['kd_deep_skipped'] for n in range(4)] == [0, 0, 1, 2]
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    assert distillation_of(run.model).skipped == {'deep': 2}


def test_all_teachers_are_in_the_opening_the_record_and_the_check_of_a_resume(shared: Path, tmp_path: Path) -> None:
    said: list[str] = []
    other = save_weights(segmentor(12), tmp_path / 'other.pth', seed=4)
    model = distilled(shared, dict(flat=dict(FLAT, teacher='big'), deep=dict(DEEP, teacher='wide', weight=3)))
    teachers = dict(big=model.pop('teacher'), wide=dict(model=segmentor(12), checkpoint=other, weight=0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.logging.MMLogger.info', lambda self, message, *_: said.append(str(message)))
        run = start(run_config(shared, tmp_path, dict(model, teachers=teachers), iters=2))
    (opening,) = (text for text in said if 'student tap <- teacher tap' in text)
    for text in ('big ', 'wide ', hash_file(other), hash_file(shared / 'segmentor.pth'), 'backbone (wide)', '8->12'):
        assert text in opening
    saved = read_checkpoint(run.folder / 'iter_2.pth')['kdplugin']
    assert {name: one['sha256'] for name, one in saved['teachers'].items()} == dict(
        big=hash_file(shared / 'segmentor.pth'), wide=hash_file(other)
    )
    distillation = distillation_of(run.model)
    check_teachers(distillation, saved)
    check_teachers(distillation, dict(teacher=None))
    distillation.teachers = dict(big=distillation.teachers['big'])
    with pytest.raises(CheckpointError, match=r"began with, \['big', 'wide'\], but got \['big'\]. Put the old names"):
        check_teachers(distillation, saved)
    distillation.teachers = dict(teacher=distillation.teachers['big'])
    old = dict(teacher=dict(sha256='0' * 64))
    with pytest.raises(
        CheckpointError, match=r'the teacher this run began with \(sha256 000000000000\) but .*segmentor'
    ):
        check_teachers(distillation, old)
