"""A distance that is not finite is named; answers on their way are waited for when it matters."""

from __future__ import annotations

import pytest
import torch

from kdplugin.distill.finite import MOST_PENDING, Answer, FiniteGuard
from kdplugin.errors import NumericError

WHO = {'low': "pair 'low' ('backbone') at iteration 7", 'cls': "pair 'cls' ('head') at iteration 7"}


class Event:
    """Stands for a CUDA event."""

    def __init__(self) -> None:
        self.done, self.waited = False, 0

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waited += 1


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(NumericError, match=r"got NaN or infinity at pair 'cls' \('head'\) at iteration 7\. Check the"):
        FiniteGuard().watch({'low': torch.tensor(1.0), 'cls': torch.tensor(value)}, WHO)
    with pytest.raises(NumericError, match=r"at pair 'low' \('backbone'\) at iteration 7; pair 'cls'"):
        FiniteGuard().watch({'low': torch.tensor(value), 'cls': torch.tensor(value)}, WHO)


def test_finite_and_silent_pass() -> None:
    guard = FiniteGuard()
    guard.watch({'low': torch.tensor(1.0)}, WHO)
    guard.watch({}, WHO)
    assert guard.pending == []
    FiniteGuard(silent=True).watch({'low': torch.tensor(float('nan'))}, WHO)


def test_an_answer_on_its_way_is_looked_at_when_it_arrives_or_when_it_matters() -> None:
    event, guard = Event(), FiniteGuard()
    guard.pending.append(Answer(WHO, torch.tensor([True, False]), event))  # type: ignore[arg-type]
    guard.check()
    assert (len(guard.pending), event.waited) == (1, 0)
    with pytest.raises(NumericError, match="pair 'cls'"):
        guard.check(wait=True)
    assert event.waited == 1
    event.done = True
    guard.pending.append(Answer(WHO, torch.tensor([False, True]), event))  # type: ignore[arg-type]
    with pytest.raises(NumericError, match="pair 'low'"):
        guard.check()
    assert event.waited == 1


def test_answers_do_not_pile_up() -> None:
    guard = FiniteGuard()
    guard.pending += [Answer(WHO, torch.tensor([True, True]), Event()) for _ in range(MOST_PENDING)]  # type: ignore
    guard.watch({'low': torch.tensor(1.0)}, WHO)
    assert guard.pending == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_cuda_no_step_waits_for_the_device() -> None:
    guard, mode = FiniteGuard(), torch.cuda.get_sync_debug_mode()
    bad = torch.tensor(float('nan'), device='cuda')
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        torch.cuda._sleep(100_000_000)
        guard.watch({'low': bad}, WHO)
        assert len(guard.pending) == 1
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    with pytest.raises(NumericError, match="pair 'low'"):
        guard.check(wait=True)
