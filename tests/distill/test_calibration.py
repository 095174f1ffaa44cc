"""The weight that gives a term its share of the task loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdplugin.distill.calibration import Calibration
from kdplugin.errors import NumericError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr('kdplugin.distill.calibration.print_log', lambda message, **_: lines.append(message))
    return lines


def scalar(value: float) -> Tensor:
    return torch.tensor(value)


def test_the_weight_is_the_ratio_of_running_means_and_then_stays(said: list[str]) -> None:
    raw, task = [0.5, 0.25, 0.75, 9.0], [2.0, 3.0, 1.0, 9.0]
    calibration = Calibration('low', 0.3, iterations=3)
    found = [float(calibration.weight(scalar(one), scalar(other))) for one, other in zip(raw, task, strict=True)]
    assert found == pytest.approx([0.3 * 2 / 0.5, 0.3 * 5 / 0.75, 0.3 * 6 / 1.5, 0.3 * 6 / 1.5])
    assert calibration.found == pytest.approx(1.2)
    assert said == ["pair 'low': weight 1.2 = 0.3 x task 2 / raw 0.5, the means of 3 iterations."]


def test_the_weight_carries_no_gradient() -> None:
    raw = torch.tensor(0.5, requires_grad=True)
    weight = Calibration('low', 1.0).weight(raw, raw * 2)
    assert isinstance(weight, Tensor)
    assert not weight.requires_grad


def test_a_look_without_training_records_nothing() -> None:
    calibration = Calibration('low', 0.5, iterations=1)
    assert float(calibration.weight(scalar(2), scalar(4), record=False)) == 1.0
    assert (calibration.seen, calibration.found) == (0, None)


def test_a_step_that_is_not_finite_is_no_measurement() -> None:
    calibration = Calibration('low', 1.0, iterations=9)
    calibration.weight(scalar(1), scalar(2))
    assert float(calibration.weight(scalar(float('nan')), scalar(5))) == 2.0
    assert float(calibration.weight(scalar(1), scalar(float('inf')))) == 2.0


@pytest.mark.parametrize(('raw', 'task'), [(0.0, 1.0), (1.0, 0.0), (float('nan'), 1.0)])
def test_nothing_to_measure_is_an_error(raw: float, task: float) -> None:
    calibration = Calibration('low', 1.0, iterations=2)
    assert float(calibration.weight(scalar(raw), scalar(task))) == 0
    with pytest.raises(NumericError, match=r"pair 'low' to measure a distance and a task loss above 0 in 2 iterations"):
        calibration.weight(scalar(raw), scalar(task))


def test_it_goes_on_from_its_state_as_if_nothing_had_happened(said: list[str]) -> None:
    torch.manual_seed(0)
    steps = [(torch.rand(()), torch.rand(())) for _ in range(6)]
    whole, cut = Calibration('low', 0.3, iterations=5), Calibration('low', 0.3, iterations=5)
    expected = [float(whole.weight(*step)) for step in steps]
    found = [float(cut.weight(*step)) for step in steps[:2]]
    resumed = Calibration('low', 0.3, iterations=5)
    resumed.load_state(cut.state())
    found += [float(resumed.weight(*step)) for step in steps[2:]]
    assert found == expected
    done = Calibration('low', 0.3)
    done.load_state(resumed.state())
    assert done.weight(*steps[0]) == expected[-1]
    fresh = Calibration('low', 0.3)
    fresh.load_state(Calibration('low', 0.3).state())
    assert (fresh.seen, fresh.found, fresh._sums) == (0, None, None)


def test_all_processes_take_the_mean(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """The other process has measured (3, 6) where this one has (1, 2)."""

    def all_reduce(both: Tensor, op: str) -> None:
        assert op == 'mean'
        both.add_(torch.tensor([3.0, 6.0])).div_(2)

    monkeypatch.setattr('kdplugin.distill.calibration.dist.all_reduce', all_reduce)
    calibration = Calibration('low', 1.0, iterations=1)
    calibration.weight(scalar(1), scalar(2))
    assert 'task 4 / raw 2' in said[0]
