"""One line of a comparison."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the comparison; None where a run has no such number."""

    name: str
    baseline: float | None
    kd: float | None
    teacher: float | None = None
    digits: int = 2
    higher_is_better: bool = True

    @property
    def delta(self) -> float | None:
        """KD minus baseline."""
        return None if self.baseline is None or self.kd is None else self.kd - self.baseline

    @property
    def improvement(self) -> float | None:
        """The delta in percent of the baseline, positive where KD is better."""
        if self.delta is None or not self.baseline:
            return None
        return (1 if self.higher_is_better else -1) * 100 * self.delta / abs(self.baseline)
