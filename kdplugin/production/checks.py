"""The assertions of a production test: each a number, the limit it has to keep, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MARGIN = 0.5
"""Share of the best constant predictor's loss, and of its error, that a trained student has to stay below."""
START_MARGIN = 0.9
"""Share of the random start's loss that a projected one has to stay below, before and after training."""


@dataclass(frozen=True)
class Check:
    """One assertion.

    Args:
        name: what is asserted.
        value: measured.
        limit: the value has to stay below it; None where both are hashes and have to be equal.
        passed: whether it holds.
        detail: for a person.
    """

    name: str
    value: float | str
    limit: float | str
    passed: bool
    detail: str = ''

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def below(name: str, value: float, limit: float, detail: str = '') -> Check:
    """Return the check that a finite value stays below a limit; NaN does not."""
    return Check(name, value, limit, bool(value < limit), detail)


def equal(name: str, value: str, expected: str, detail: str = '') -> Check:
    """Return the check that two hashes are the same."""
    return Check(name, value[:12], expected[:12], value == expected, detail)


def learns(loss: float, constant: float) -> Check:
    """Return the check that a student knows more than any constant."""
    return below('loss below the best constant', loss, MARGIN * constant, f'{MARGIN:g} of the constant, {constant:.4f}')


def starts_better(projected: float, random: float) -> Check:
    """Return the check that a projected start is better than a random one, before training."""
    return below('projected start before training', projected, START_MARGIN * random,
                 f'{START_MARGIN:g} of the random start, {random:.4f}')  # fmt: skip


def ends_better(projected: float, random: float) -> Check:
    """Return the check that a projected start is still better after the same training."""
    return below('projected start after training', projected, random, f'the random start, {random:.4f}')


def paints(error: float, constant: float) -> Check:
    """Return the check that a student's pictures are nearer to the teacher's than one picture for all."""
    return below(
        'latents nearer than a constant', error, MARGIN * constant, f'{MARGIN:g} of the constant, {constant:.4f}'
    )


def failures(checks: Sequence[Check]) -> list[str]:
    """Return the names of the checks that do not hold."""
    return [check.name for check in checks if not check.passed]
