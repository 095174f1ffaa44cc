"""Find a pair's weight from what it measures: its term shall be a given share of the student's own loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor

from kdplugin.errors import NumericError


@dataclass
class Calibration:
    """The weight w of a pair with w * mean(raw) = ratio * mean(task) over its first iterations.

    ``raw`` is the pair's distance, ``task`` the sum of the student's own losses before ``task_weight`` and ``alpha``.
    While it measures, the weight is what these means give up to and with the current iteration: the term has its
    share from the first step on, the weight settles instead of jumping at the end, and that of the last measured step
    is the one that stays. All processes take the mean over all of them, so that they agree.

    Args:
        name: of the pair.
        ratio: of the pair's term to the task loss.
        iterations: how many to measure, N.
        seen: how many have been measured.
        found: the weight, once all have been measured.
    """

    name: str
    ratio: float
    iterations: int = 20
    seen: int = 0
    found: float | None = None
    _sums: Tensor | None = field(default=None, repr=False)

    def weight(self, raw: Tensor, task: Tensor, *, record: bool = True) -> float | Tensor:
        """Return the weight for one step, on the device of ``raw`` until it is found.

        Args:
            raw: the distance in this step; steps where it is not finite count as no measurement.
            task: the task loss in this step.
            record: whether the step is one of training.

        Raises:
            NumericError: the last step measured, and nothing to measure.
        """
        if self.found is not None:
            return self.found
        both = torch.stack([raw.detach().float(), task.detach().float()])
        both = torch.where(both.isfinite().all(), both, 0)
        if record:
            dist.all_reduce(both, 'mean')
        sums = both if self._sums is None else both + self._sums.to(both)
        estimate = torch.where(sums[0] > 0, self.ratio * sums[1] / sums[0], 0)
        if record:
            self._sums, self.seen = sums, self.seen + 1
            if self.seen >= self.iterations:
                self._settle(float(estimate), sums.tolist())
        return estimate if self.found is None else self.found

    def _settle(self, weight: float, sums: list[float]) -> None:
        raw, task = (value / self.seen for value in sums)
        if not 0 < weight < float('inf'):
            raise NumericError(
                f'Expected pair {self.name!r} to measure a distance and a task loss above 0 in {self.seen} iterations '
                f'but got means of {raw:g} and {task:g}, from which target_ratio finds no weight. Give a weight.'
            )
        self.found = weight
        print_log(
            f'pair {self.name!r}: weight {weight:.6g} = {self.ratio:g} x task {task:.4g} / raw {raw:.4g}, the means '
            f'of {self.seen} iterations.',
            logger='current',
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values."""
        return {'seen': self.seen, 'found': self.found, 'sums': None if self._sums is None else self._sums.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.seen, self.found = state['seen'], state['found']
        self._sums = None if state['sums'] is None else torch.tensor(state['sums'])
