"""A run that a signal stops saves what it did, ends with 75, and goes on as if it had never stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import all_tensors, distilled, feature_and_logit_pairs, segmentor
from engine_runs import Run, run_config, start
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from test_safe_checkpoint_hook import assert_same_end, recipe, uninterrupted

from kdplugin.errors import CheckpointError, NumericError
from kdplugin.hooks.stop_signals import stop_signals
from kdplugin.weights.reading.io import hash_tensors, read_checkpoint
from kdplugin.weights.reading.seal import check_seal

__all__ = ['uninterrupted']


@HOOKS.register_module()
class SignalAt(Hook):
    """Send this process a signal, as a scheduler would."""

    def __init__(self, method: str, iteration: int, number: int = signal.SIGTERM) -> None:
        self.when, self.number = (method, iteration), number

    def _maybe(self, method: str, runner: Runner) -> None:
        if self.when == (method, runner.iter):
            os.kill(os.getpid(), self.number)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._maybe('before_train_iter', runner)

    def before_val(self, runner: Runner) -> None:
        self._maybe('before_val', runner)


@HOOKS.register_module()
class BreakWeights(Hook):
    """Put NaN into a weight."""

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 2:
            with torch.no_grad():
                next(runner.model.parameters())[0] = float('nan')


def stopped(config: Any, *when: Any) -> None:
    config.custom_hooks = [*config.custom_hooks, dict(type='mmengine.SignalAt', method=when[0], iteration=when[1])]
    with pytest.raises(SystemExit) as caught, stop_signals():
        start(config)
    assert caught.value.code == 75


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize(
    ('kind', 'when', 'file', 'since', 'validations'),
    [
        ('iterations', ('before_train_iter', 4), 'iter_6.pth', 6, {8}),
        ('iterations', ('before_val', 4), 'iter_6.pth', 6, {8}),
        ('epochs', ('before_train_iter', 5), 'epoch_1_batch_2.pth', 6, {8, 12}),
        ('epochs', ('before_train_iter', 7), 'epoch_2.pth', 8, {8, 12}),
    ],
    ids=['gathering gradients', 'validating', 'within an epoch', 'at the end of an epoch'],
)
def test_it_goes_on_as_if_never_stopped(
    shared: Path, tmp_path: Path, uninterrupted: dict[str, Run], kind: str, when: Any, file: str, since: int,
    validations: set[int],
) -> None:  # fmt: skip
    """Two iterations make a step of the optimizer: between them nothing is saved."""
    stopped(recipe(shared, tmp_path, kind), *when)
    assert file in files(tmp_path)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / file)
    assert (tmp_path / 'stopped').read_text() == f'SIGTERM after iteration {since}: {tmp_path / file}\n'
    assert check_seal(tmp_path / file)
    resumed = start(recipe(shared, tmp_path, kind), resume='auto')
    assert min(resumed.steps) == since
    assert set(resumed.validations) == validations
    assert_same_end(resumed, uninterrupted[kind], since)
    assert files(tmp_path) == files(uninterrupted[kind].folder)
    assert not (tmp_path / 'stopped').exists()


def test_a_complete_iteration_is_not_saved_twice(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdplugin.hooks.atomic_backend import AtomicLocalBackend

    put, written = AtomicLocalBackend.put, []

    def noted(self: AtomicLocalBackend, obj: bytes, filepath: str) -> None:
        written.append(Path(filepath).name)
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', noted)
    stopped(run_config(shared, tmp_path, segmentor(), iters=4, save_every=2), 'before_train_iter', 1)
    assert written == ['iter_2.pth']


def test_a_broken_model_does_not_take_the_place_of_a_good_one(shared: Path, tmp_path: Path) -> None:
    hooks = (dict(type='mmengine.BreakWeights'),)
    message = r'numbers to save after iteration 4 but .* hold NaN.*iter_2\.pth is the last good checkpoint'
    with pytest.raises(NumericError, match=message):
        start(run_config(shared, tmp_path, segmentor(), iters=4, save_every=2, hooks=hooks))
    assert files(tmp_path) == ['iter_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_2.pth')


def test_another_model_or_teacher_is_not_resumed(shared: Path, tmp_path: Path) -> None:
    """Also without distillation; and a teacher whose file changed under the run."""
    teacher = tmp_path / 'teacher.pth'
    teacher.write_bytes((shared / 'segmentor.pth').read_bytes())

    def config(name: str, model: Any) -> Any:
        return run_config(shared, tmp_path / name, model, iters=2, save_every=1)

    def learning() -> Any:
        model = distilled(shared, feature_and_logit_pairs())
        model['teacher']['checkpoint'] = str(teacher)
        return config('learning', model)

    start(config('plain', segmentor()))
    with pytest.raises(
        CheckpointError, match=r'resume this student but \d+ tensors do not fit, such as \[.*Resume with'
    ):
        start(config('plain', segmentor(16)), resume='auto')
    start(learning())
    content = read_checkpoint(teacher)
    torch.save({**content, 'note': 'saved again'}, teacher)
    message = (
        r'the teacher this run began with \(sha256 .*teacher\.pth is another file .*Put the old file back, or start'
    )
    with pytest.raises(CheckpointError, match=message):
        start(learning(), resume='auto')


def test_leftovers_of_a_killed_run_are_removed(shared: Path, tmp_path: Path) -> None:
    (tmp_path / '.iter_9.pth.abcdefgh').write_bytes(b'half')
    run = start(run_config(shared, tmp_path, segmentor(), iters=1, save_every=1))
    assert not (tmp_path / '.iter_9.pth.abcdefgh').exists()
    assert hash_tensors(all_tensors(run.model)) == hash_tensors(
        {**all_tensors(run.model), **read_checkpoint(tmp_path / 'iter_1.pth')['state_dict']}
    )
