"""Where in its data a resumed run goes on, and with which random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.runner import Runner

from kdplugin.distill.rng import rng_state, set_rng_state


class RestoringIterator:
    """Stand in for the data iterator of a loop by iterations: put the generators back before the first new batch.

    mmengine 0.10.12 jumps to the resumed position (``skip_iter``), 0.10.7 loads and drops batches; making the data
    loader's iterator and loading batches both draw random numbers.
    """

    def __init__(self, iterator: Any, replayed: int, state: dict[str, Any]) -> None:
        self._iterator = iterator
        self._state: dict[str, Any] | None = state
        self._replayed = 0 if hasattr(iterator, 'skip_iter') else replayed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __iter__(self) -> RestoringIterator:
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


class RestOfEpoch:
    """Stand in for a data loader's batch sampler: leave out, once, the batches before a resumed one.

    No image of theirs is loaded. The generators are put back after the loader's iterator has drawn its own seed.
    """

    def __init__(self, sampler: Any, done: int, state: dict[str, Any]) -> None:
        self._sampler, self._done, self._state = sampler, done, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._sampler)
        if self._done:
            for _ in range(self._done):
                next(batches)
            self._done = 0
            set_rng_state(self._state)
        yield from batches


def resume_within_epoch(loop: Any, done: int, state: dict[str, Any]) -> None:
    """Let the next epoch of a loop begin with its batch number ``done``, counted from 0.

    Args:
        loop: mmengine's ``EpochBasedTrainLoop``.
        done: batches of this epoch that the checkpoint has seen.
        state: of the generators, see ``rng_state``.
    """
    loader = loop.dataloader
    loader.__dict__['batch_sampler'] = RestOfEpoch(loader.batch_sampler, done, state)  # the setter refuses
    epoch, run_iter = loop.epoch, loop.run_iter

    def counted(index: int, batch: Any) -> None:
        run_iter(index + done if loop.epoch == epoch else index, batch)

    loop.run_iter = counted


def by_iterations(runner: Runner) -> bool:
    """Tell whether a run counts iterations and no epochs."""
    return hasattr(runner.train_loop, 'dataloader_iterator')


def gathers_gradients(runner: Runner) -> bool:
    """Tell whether the iteration that ends left gradients for a later step, which no checkpoint holds."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    done = runner.iter + 1
    return done % counts != 0 and done != runner.max_iters


def validation_is_due(runner: Runner, validated: int) -> bool:
    """Tell whether the run stopped at a validation that was not complete; ``validated`` is when the last one was."""
    if runner.val_loop is None or validated == runner.iter:
        return False
    loop: Any = runner.train_loop
    loop._decide_current_val_interval()
    if by_iterations(runner):
        position, last = loop.iter, loop.max_iters
    else:
        position, last = loop.epoch, loop.max_epochs
    return position >= loop.val_begin and (position % loop.val_interval == 0 or position == last)


def continue_data(runner: Runner, done: int, length: int) -> None:
    """Let a resumed run go on with its next batch and with the present state of the generators.

    Args:
        done: batches of the epoch that the checkpoint has seen; 0 between epochs and for runs by iterations.
        length: batches of that epoch.
    """
    loop: Any = runner.train_loop
    if by_iterations(runner):
        loop.dataloader_iterator = RestoringIterator(loop.dataloader_iterator, runner.iter, rng_state())
    elif done and length != len(loop.dataloader):
        runner.logger.warning(
            f'Expected epochs of {length} batches, as the checkpoint has seen, but got {len(loop.dataloader)}. The '
            'epoch begins anew. Resume with the batch size and the number of processes that wrote the checkpoint.'
        )
    elif done:
        resume_within_epoch(loop, done, rng_state())
