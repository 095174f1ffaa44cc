"""Data workers go on after SIGTERM while the training does, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from kdplugin.hooks import steady_workers
from kdplugin.hooks.steady_workers import keep_workers


@pytest.fixture(autouse=True)
def _stays() -> Iterator[None]:
    yield
    steady_workers._leaving[0] = 0


def loader(keep: bool) -> DataLoader[int]:
    one: DataLoader[int] = DataLoader(list(range(40)), num_workers=1, prefetch_factor=1)  # type: ignore[arg-type]
    if keep:
        keep_workers(one)
    return one


def terminate(batches: Any) -> int:
    (worker,) = batches._workers
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.5)
    return worker.pid


def test_all_batches_come_though_the_worker_was_asked_to_end() -> None:
    batches: Any = iter(loader(keep=True))
    next(batches)
    terminate(batches)
    assert [int(value) for value in batches] == list(range(1, 40))


def test_without_it_the_training_fails() -> None:
    batches: Any = iter(loader(keep=False))
    next(batches)
    terminate(batches)
    with pytest.raises(
        RuntimeError, match=r'DataLoader worker .* (is killed by signal: Terminated|exited unexpectedly)'
    ):
        list(batches)


def test_it_ends_when_the_training_leaves() -> None:
    batches: Any = iter(loader(keep=True))
    next(batches)
    (worker,) = batches._workers
    steady_workers._leave()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_a_function_that_was_there_is_still_called() -> None:
    seen = multiprocessing.Value('i', 0)

    def note(number: int) -> None:
        seen.value = number + 1

    one = loader(keep=False)
    one.worker_init_fn = note
    keep_workers(one)
    list(one)
    assert seen.value == 1


def test_loaders_without_workers_stay_as_they_are() -> None:
    one: DataLoader[int] = DataLoader([1, 2])  # type: ignore[arg-type]
    keep_workers(one)
    assert one.worker_init_fn is None
