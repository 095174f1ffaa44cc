"""A model and the batches that scores and statistics are taken on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.pruning.blocks import Blocks, blocks_of
from kdplugin.weights.mapping.execution import call, tensors_in

Run = Callable[[nn.Module, Any], Any]
Objective = Callable[[nn.Module, Any], Tensor]


def output_energy(model: nn.Module, batch: Any) -> Tensor:
    """Return half the mean square of all outputs: an objective for a backbone without labels.

    Its gradient asks which units the outputs hang on, not which ones the task needs: give the task's loss where there
    is one.
    """
    outputs = [value for value in tensors_in(call(model, batch)) if value.requires_grad]
    return sum((value.float().square().mean() for value in outputs), start=0) / 2  # type: ignore[return-value]


@dataclass(frozen=True)
class Calibration:
    """What a scorer looks at: a model, batches, and how the one is run on the other.

    Args:
        model: whole, not pruned; its modes, buffers and gradients are left as they were.
        batches: a few, such as 8 of 2 images, of the training data; gone through once by each scorer.
        run: a forward pass of the model on a batch, by default ``model(batch)``, with a tuple as arguments and a dict
            as keyword arguments.
        objective: a loss of the model on a batch, for the Taylor score.
        prefix: path of the backbone in the model with a dot at its end, where it has several.
        progress: show a bar on stderr, in a terminal.
    """

    model: nn.Module
    batches: Sequence[Any] = ()
    run: Run = call
    objective: Objective = output_energy
    prefix: str | None = None
    progress: bool = True
    blocks: Blocks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'blocks', blocks_of(self.model, self.prefix))

    def walk(self, doing: str) -> Iterator[Any]:
        """Yield the batches with a progress bar.

        Raises:
            ConfigError: there are none.
        """
        if not len(self.batches):
            raise ConfigError(
                f'Expected calibration batches for {doing} but got none. Give a few of the training data.'
            )
        console = Console(stderr=True)
        yield from track(
            self.batches, doing, console=console, transient=True, disable=not (self.progress and sys.stderr.isatty())
        )
