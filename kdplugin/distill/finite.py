"""Stop at the first distance that is no finite number, without making the device wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdplugin.errors import NumericError

MOST_PENDING = 16
"""So many steps may be on their way before the oldest one is waited for."""


@dataclass
class Answer:
    """Which distances of one step are finite, on its way from the device."""

    what: dict[str, str]
    flags: Tensor
    arrived: torch.cuda.Event | None = None


@dataclass
class FiniteGuard:
    """Raise NumericError for a distance that is NaN or infinite.

    On the CPU at once. On CUDA the answer is copied into pinned memory behind the step's own work and looked at when it
    has arrived, one or a few steps later; ``check(wait=True)`` before a checkpoint is saved keeps a broken model off
    the disk. No step waits for the device.

    Args:
        pending: answers that are on their way.
        silent: look at nothing.
    """

    pending: list[Answer] = field(default_factory=list)
    silent: bool = False

    def watch(self, distances: Mapping[str, Tensor], descriptions: Mapping[str, str]) -> None:
        """Look at the distances of one step.

        Args:
            distances: scalars by name.
            descriptions: by name, who that is and when.

        Raises:
            NumericError: a distance of this step, or of an earlier one, is not finite.
        """
        if distances and not self.silent:
            flags = torch.stack([value.detach().isfinite() for value in distances.values()])
            what = {name: descriptions[name] for name in distances}
            self.pending.append(_send(flags, what))
        self.check(wait=len(self.pending) > MOST_PENDING)

    def check(self, *, wait: bool = False) -> None:
        """Look at the answers that have arrived.

        Args:
            wait: for those that have not.

        Raises:
            NumericError: names the pair, its taps and the iteration.
        """
        while self.pending:
            answer = self.pending[0]
            if answer.arrived is not None and not answer.arrived.query():
                if not wait:
                    return
                answer.arrived.synchronize()
            self.pending.pop(0)
            wrong = [what for what, fine in zip(answer.what.values(), answer.flags.tolist(), strict=True) if not fine]
            if wrong:
                raise NumericError(
                    f'Expected finite distances but got NaN or infinity at {"; ".join(wrong)}. Check the learning rate '
                    "and the images' normalisation, tap logits instead of probabilities, or let the pair have "
                    "on_nan='skip'."
                )


def _send(flags: Tensor, what: dict[str, str]) -> Answer:
    if flags.device.type != 'cuda':
        return Answer(what, flags)
    host = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    host.copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return Answer(what, host, arrived)
