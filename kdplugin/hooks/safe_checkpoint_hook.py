"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from kdplugin.distill.rng import rng_state, set_rng_state
from kdplugin.hooks.atomic_backend import remove_leftovers
from kdplugin.hooks.find_checkpoint import PARTIAL, POINTER, latest_complete_checkpoint
from kdplugin.hooks.model_of import is_sharded, model_of
from kdplugin.hooks.resume_checks import check_no_nan, check_resumed_weights
from kdplugin.hooks.resumed_data import by_iterations, continue_data, gathers_gradients, validation_is_due
from kdplugin.hooks.same_start import check_same_start
from kdplugin.hooks.steady_workers import keep_workers
from kdplugin.hooks.stop_signals import Agreement, Stopped, received
from kdplugin.registry import HOOKS
from kdplugin.weights.reading.io import write_text

__all__ = ['SafeCheckpointHook', 'latest_complete_checkpoint']
RNG_KEY = 'rng_states'
STOPPED = 'stopped'
"""A file in the work dir of a run that a signal stopped, gone when it goes on."""


class _Deferred:
    """A file backend whose removals wait until ``flush``."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._pending: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._pending.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._pending.append((self._backend.rmtree, path))

    def flush(self, keep: set[str]) -> None:
        for remove, path in self._pending:
            if path not in keep and self._backend.exists(path):
                remove(path)
        self._pending.clear()


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, with nothing lost when a run is killed.

    A checkpoint is written with its checksum beside its final name, synced, read back and renamed; then
    ``last_checkpoint`` names it; then the one it replaces is deleted. It holds the random number generators of every
    rank. On resume they are put back, and a validation that was due when the run was killed is run first.

    On SIGTERM or SIGUSR1 all ranks stop at one iteration, with a checkpoint and exit code 75. Within an epoch that
    checkpoint is ``epoch_3_batch_120.pth``: a resumed run goes on with batch 121.

    Takes the arguments of ``mmengine.hooks.CheckpointHook``.

    Raises:
        CheckpointError: ranks begin with other weights or teachers, or a resumed file does not fit the model.
        NumericError: a weight is NaN at the moment of saving.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any
    keep_ckpt_ids: Any
    last_ckpt: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='kdplugin_atomic')
        self._states: list[dict[str, Any]] = []
        self._resumed: dict[str, Any] | None = None
        self._validated = -1
        self._meta: dict[str, Any] = {}
        self._batches = (0, 0)
        self._good: str | None = None
        self._partial: str | None = None
        self._stopping = False

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.file_backend = _Deferred(self.file_backend)
        self._agreement = Agreement()
        if is_main_process() and self.backend_args == dict(backend='kdplugin_atomic'):
            for name in remove_leftovers(self.out_dir):
                runner.logger.info(f'Removed {name}, which a killed run left half written.')
        Path(runner.work_dir, STOPPED).unlink(missing_ok=True)
        check_same_start(model_of(runner), sharded=is_sharded(runner))
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                keep_workers(loop.dataloader)
        if self._resumed is not None:
            self._continue(runner, self._resumed)
            self._resumed = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            check_resumed_weights(runner, checkpoint)
            self._resumed = checkpoint.get(RNG_KEY) or {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        check_no_nan(checkpoint, self._good)
        checkpoint['meta'].update(self._meta)  # FlexibleRunner counts an epoch twice after a validation
        if self._states:
            checkpoint[RNG_KEY] = {'ranks': self._states, 'validated': self._validated, 'batches': self._batches}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if not by_iterations(runner):
            self._batches = (batch_idx + 1, len(runner.train_dataloader))
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self._agreement.reached() and not gathers_gradients(runner):
            self._stop_within(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._batches = (0, 0)
        super().after_train_epoch(runner)
        if self._stopping:
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._validated = runner.iter
        with self._removing_last(runner):
            super().after_val_epoch(runner, metrics or {})

    def after_train(self, runner: Runner) -> None:
        self._agreement.close()
        super().after_train(runner)

    def _save_checkpoint(self, runner: Runner) -> None:
        with self._removing_last(runner):
            super()._save_checkpoint(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Save, name the file in ``last_checkpoint``, and mark for removal what it replaces."""
        replaced = [self._partial] if self._partial else []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                replaced.append(self._path(self.filename_tmpl.format(self.keep_ckpt_ids.popleft())))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta, self.by_epoch)
        self._partial = None
        for path in replaced if is_main_process() else ():
            (self.file_backend.rmtree if self.file_backend.isdir(path) else self.file_backend.remove)(path)

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], by_epoch: bool) -> None:
        self.last_ckpt = self._path(name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._states, self._meta = all_gather_object(rng_state()), dict(meta)
        try:
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=by_epoch,
                backend_args=self.backend_args, **self.args,
            )  # fmt: skip
        finally:
            self._states, self._meta = [], {}
        self._good = self.last_ckpt
        if is_main_process():
            write_text(Path(runner.work_dir, POINTER), self.last_ckpt)

    def _path(self, name: str) -> str:
        return str(self.file_backend.join_path(self.out_dir, name))

    @contextlib.contextmanager
    def _removing_last(self, runner: Runner) -> Iterator[None]:
        yield
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        self.file_backend.flush({str(path) for path in (self.last_ckpt, *best) if path})

    def _stop_within(self, runner: Runner) -> None:
        done, length = self._batches
        if not self.by_epoch:
            self._stop(runner, runner.iter + 1, runner.iter + 1)
        elif done == length and not by_iterations(runner):
            self._stopping = True  # the epoch is complete: its hooks come first
        else:
            name = Path(self.filename_tmpl.format(runner.epoch))
            name = name.with_name(f'{name.stem}{PARTIAL}{done or runner.iter + 1}{name.suffix}')
            self._write(runner, str(name), dict(epoch=runner.epoch, iter=runner.iter + 1), by_epoch=False)
            self._leave(runner, runner.iter + 1)

    def _stop(self, runner: Runner, step: int, done: int) -> None:
        if self.last_ckpt != self._path(self.filename_tmpl.format(step)):
            self._save_checkpoint(runner)
        self._leave(runner, done)

    def _leave(self, runner: Runner, done: int) -> None:
        """End the process, after the checkpoint of rank 0 is complete."""
        if is_main_process():
            said = f'{received() or "A signal to another process"} after iteration {done}: {self.last_ckpt}'
            write_text(Path(runner.work_dir, STOPPED), said + '\n')
            runner.logger.info(f'Stopped by {said} is complete. Go on with --resume.')
            runner.visualizer.close()
        barrier()
        raise Stopped

    def _continue(self, runner: Runner, saved: dict[str, Any]) -> None:
        states = saved.get('ranks') or []
        if len(states) != get_world_size():
            runner.logger.warning(
                f'Expected random states of {get_world_size()} processes but the checkpoint holds {len(states)}. '
                'The run goes on from its weights and optimizer, with other random numbers.'
            )
        else:
            set_rng_state(states[get_rank()])
        self._good = runner._load_from
        last = str(runner.message_hub.runtime_info.get('last_ckpt') or '')
        self._partial = last if PARTIAL in Path(last).stem else None
        self._validated = saved.get('validated', -1)
        done, length = saved.get('batches') or (0, 0)
        if not done and validation_is_due(runner, self._validated):
            runner.logger.info('The run stopped before its validation was complete: validating now.')
            runner.val_loop.run()
        continue_data(runner, done, length)
