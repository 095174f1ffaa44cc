"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from kdplugin.distill.rng import rng_state, set_rng_state
from kdplugin.errors import CheckpointError
from kdplugin.hooks import atomic_backend  # noqa: F401 - registers the backend
from kdplugin.registry import HOOKS
from kdplugin.weights.reading.io import read_checkpoint

RNG_KEY = 'rng_states'


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


class _RestoringIterator:
    """Stand in for a train loop's data iterator on resume: put the generators back before the first new batch.

    mmengine 0.10.12 jumps to the resumed position (``skip_iter``), 0.10.7 loads and drops batches; making the data
    loader's iterator and loading batches both draw random numbers.
    """

    def __init__(self, iterator: Any, replayed: int, state: dict[str, Any]) -> None:
        self._iterator = iterator
        self._state: dict[str, Any] | None = state
        self._replayed = 0 if hasattr(iterator, 'skip_iter') else replayed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __iter__(self) -> _RestoringIterator:
        return self

    def __next__(self) -> Any:
        if self._replayed > 0:
            self._replayed -= 1
        elif self._state is not None:
            if hasattr(self._iterator, '_ensure_iterator'):
                self._iterator._ensure_iterator()
            set_rng_state(self._state)
            self._state = None
        return next(self._iterator)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, with nothing lost when a run is killed.

    A checkpoint is written beside its final name, synced, read back and renamed; the one it replaces is deleted
    after that. It holds the random number generators of every rank. On resume they are put back, and a validation
    that was due when the run was killed is run first.

    Takes the arguments of ``mmengine.hooks.CheckpointHook``.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='kdplugin_atomic')
        self._states: list[dict[str, Any]] = []
        self._resumed: dict[str, Any] | None = None
        self._validated = -1

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.file_backend = _Deferred(self.file_backend)
        if self._resumed is not None:
            self._continue(runner, self._resumed)
            self._resumed = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            self._resumed = checkpoint.get(RNG_KEY) or {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self._states:
            checkpoint[RNG_KEY] = {'ranks': self._states, 'validated': self._validated}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._validated = runner.iter
        with self._removing_last(runner):
            super().after_val_epoch(runner, metrics or {})

    def _save_checkpoint(self, runner: Runner) -> None:
        with self._removing_last(runner):
            super()._save_checkpoint(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        self._states = all_gather_object(rng_state())
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self._states = []

    @contextlib.contextmanager
    def _removing_last(self, runner: Runner) -> Iterator[None]:
        yield
        best = getattr(self, 'best_ckpt_path', None)
        kept = {str(path) for path in (self.last_ckpt, best) if path}
        self.file_backend.flush(kept)

    def _continue(self, runner: Runner, saved: dict[str, Any]) -> None:
        states = saved.get('ranks') or []
        if len(states) != get_world_size():
            runner.logger.warning(
                f'Expected random states of {get_world_size()} processes but the checkpoint holds {len(states)}. '
                'The run goes on from its weights and optimizer, with other random numbers.'
            )
        else:
            set_rng_state(states[get_rank()])
        self._validated = saved.get('validated', -1)
        if self._validation_is_due(runner, self._validated):
            runner.logger.info('The run stopped before its validation was complete: validating now.')
            runner.val_loop.run()
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = _RestoringIterator(loop.dataloader_iterator, runner.iter, rng_state())

    @staticmethod
    def _validation_is_due(runner: Runner, validated: int) -> bool:
        if runner.val_loop is None or validated == runner.iter:
            return False
        loop = runner.train_loop
        loop._decide_current_val_interval()
        by_epoch = not hasattr(loop, 'dataloader_iterator')
        position, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        return position >= loop.val_begin and (position % loop.val_interval == 0 or position == last)


def latest_complete_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest readable training checkpoint of a run, or None.

    Looks in the work dir, and where its file ``last_checkpoint`` points if the recipe saves elsewhere (``out_dir``),
    for names that end in a number: the iteration or epoch. Newer files that are passed over are named in a warning.
    """
    folders = {Path(work_dir).resolve()}
    with contextlib.suppress(FileNotFoundError):
        folders.add(Path((Path(work_dir) / 'last_checkpoint').read_text().strip()).resolve().parent)
    found = [
        (int(number[0]), path)
        for folder in folders
        for path in folder.glob('*.pth')
        if (number := re.search(r'\d+$', path.stem)) and not path.name.startswith('best_')
    ]
    for _, path in sorted(found, reverse=True):
        try:
            if 'optimizer' in read_checkpoint(path):
                return path
            reason = f'Expected an optimizer in {path} but it holds weights alone.'
        except CheckpointError as error:
            reason = str(error)
        print_log(f'Not resumed from: {reason}', logger='current', level=logging.WARNING)
    return None
