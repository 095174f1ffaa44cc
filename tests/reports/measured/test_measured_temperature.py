from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import temperature

from kdplugin.reports.measured.temperature import temperature_table

FILE = Path(__file__).parents[3] / 'docs/results/temperature.json'


def test_the_file_is_what_the_losses_give_today() -> None:
    rows = json.loads(FILE.read_text())['rows']
    assert rows == [temperature.row(one) for one in temperature.TEMPERATURES]


def test_a_row_is_the_formula_worked_by_hand() -> None:
    """T = 2, in Python's own floats: softmax, entropy, T^2 KL, and T (p_s - p_t) as its gradient."""

    def soft(logits: tuple[float, ...]) -> list[float]:
        powers = [math.exp(value / 2) for value in logits]
        return [power / sum(powers) for power in powers]

    ours, theirs = soft(temperature.STUDENT), soft(temperature.TEACHER)
    row = temperature.row(2.0)
    assert row['teacher'] == pytest.approx(theirs, abs=1e-4)
    assert row['entropy_bits'] == pytest.approx(-sum(p * math.log2(p) for p in theirs), abs=1e-4)
    assert row['loss'] == pytest.approx(
        4 * sum(t * math.log(t / s) for s, t in zip(ours, theirs, strict=True)), abs=1e-4
    )
    length = math.dist([2 * value for value in ours], [2 * value for value in theirs])
    assert row['gradient'] == pytest.approx(length, abs=1e-4)
    assert row['gradient_without_square'] == pytest.approx(length / 4, abs=1e-5)


def test_a_row_of_the_table() -> None:
    row = dict(
        temperature=4.0, teacher=[0.5, 0.25, 0.25], entropy_bits=1.5, loss=0.1234, gradient=2.0,
        gradient_without_square=0.125,
    )  # fmt: skip
    lines = temperature_table(dict(rows=[row])).splitlines()
    assert lines[0].startswith("| T | teacher's probabilities | their entropy, bits |")
    assert lines[2] == '| 4 | 0.500, 0.250, 0.250 | 1.50 | 0.123 | 2.000 | 0.1250 |'
