"""A signal is noted, processes agree on it at one iteration, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from kdplugin.hooks.stop_signals import EXIT_CODE, SIGNALS, Agreement, Stopped, received, stop_signals


@pytest.mark.parametrize('number', SIGNALS)
def test_a_signal_is_noted_within_the_block_alone(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with stop_signals():
        agreement = Agreement()
        assert not agreement.reached()
        assert received() is None
        os.kill(os.getpid(), number)
        assert received() == number.name
        assert agreement.reached()
        agreement.close()
    assert received() is None
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_outside_the_main_thread_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with stop_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_exit_code_is_that_of_a_temporary_failure() -> None:
    assert EXIT_CODE == 75
    assert Stopped().code == EXIT_CODE


def process(rank: int, folder: Path) -> None:
    """Rank 1 is asked to stop in iteration 3; rank 0 is slow there."""
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    with stop_signals():
        agreement = Agreement()
        answers = []
        for iteration in range(6):
            if iteration == 3 and rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            answers.append(agreement.reached())
        agreement.close()
    torch.save(answers, folder / f'rank{rank}.pt')
    distributed.destroy_process_group()


def test_processes_learn_of_it_at_the_same_iteration(tmp_path: Path) -> None:
    multiprocessing.start_processes(process, (tmp_path,), nprocs=2, start_method='fork')
    answers = [torch.load(tmp_path / f'rank{rank}.pt') for rank in range(2)]
    assert answers[0] == answers[1] == [False, False, False, False, True, True]
