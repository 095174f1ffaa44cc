"""The exit code of ``python -m kdplugin.elastic`` says why a run on several processes ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from kdplugin import elastic
from kdplugin.hooks.stop_signals import EXIT_CODE


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def failed(*codes: int) -> ChildFailedError:
    """Return the error of processes that failed one after the other."""
    failures = {rank: ProcessFailure(rank, 100 + rank, code, 'none') for rank, code in enumerate(codes)}
    for rank, failure in failures.items():
        failure.timestamp = rank
    return ChildFailedError('train.py', failures)


def raising(error: Exception | None) -> Callable[[Any], None]:
    def torchrun(argv: Any) -> None:
        if error:
            raise error

    return torchrun


@pytest.mark.parametrize(
    ('error', 'code'),
    [
        (None, 0),
        (failed(75, -15), 75),
        (failed(1, -15), 1),
        (failed(-9), 137),
        (SignalException('stopped', signal.SIGTERM), 75),
        (SignalException('interrupted', signal.SIGINT), 130),
    ],
    ids=['done', 'stopped and saved', 'failed', 'killed', 'the launcher was stopped', 'interrupted'],
)
def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, error: Exception | None, code: int) -> None:
    monkeypatch.setattr(elastic, 'torchrun', raising(error))
    assert elastic.main([]) == code


def test_who_failed_first_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(elastic, 'torchrun', raising(failed(3, 1)))
    assert elastic.main([]) == 3
    assert 'exitcode  : 3 (pid: 100)' in capsys.readouterr().err


def test_sigusr1_is_passed_on_as_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def torchrun(argv: Any) -> None:
        before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGTERM, before)

    monkeypatch.setattr(elastic, 'torchrun', torchrun)
    assert elastic.main([]) == 0
    assert seen == [signal.SIGTERM]


def test_both_mean_the_same_code() -> None:
    assert elastic.STOPPED == EXIT_CODE
