"""FGD: objects, background and what is active in the teacher by themselves (focal), and how all relate (global).

N image, C channel, H W position on the grid of a level.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.adapters import build_adapters
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.maps import adapted_levels, counted_cells, map_shapes, mean_over_levels
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.losses.base import check_positive, comparable
from kdplugin.losses.fgd import focal_distance
from kdplugin.registry import MODELS


class GlobalContext(nn.Module):
    """Add to each position what all positions together say, as a block of GCNet (Cao et al., arXiv 1904.11492) does.

    Formula: x + W2 ReLU(LN(W1 sum_j softmax_j(Wk x_j) x_j)). W2 begins as 0, so the block begins as the identity.

    Args:
        channels: C of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        nn.init.kaiming_normal_(self.attention.weight, mode='fan_in')
        nn.init.zeros_(self.attention.bias)  # type: ignore[arg-type]
        for value in self.transform[-1].parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return maps of the same shape (N, C, H, W); ``counted`` (N, H, W) says which positions are looked at."""
        scores = self.attention(features).flatten(1)
        if counted is not None:
            scores = scores.masked_fill(~counted.flatten(1), torch.finfo(scores.dtype).min / 2)
        context = torch.einsum('ncp,np->nc', features.flatten(2), scores.softmax(1))
        return features + self.transform(context[:, :, None, None])


def relation_error(
    student: Tensor, teacher: Tensor, blocks: nn.ModuleList, counted: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Return (N, H, W), the mean over channels of (blocks[0](student) - blocks[1](teacher))^2.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them, but one flows into their block.
        blocks: a ``GlobalContext`` for each side.
        counted: bool (N, H, W), False where positions are not looked at; None looks at all.

    Raises:
        TapError: the shapes differ.
    """
    student, teacher = comparable(student, teacher)
    return (blocks[0](student, counted) - blocks[1](teacher, counted)).square().mean(1)


class Blocks(nn.Module):
    """The adapters and, for each level, the student's and the teacher's ``GlobalContext``."""

    def __init__(self, adapters: nn.ModuleList | None, channels: list[int]) -> None:
        super().__init__()
        self.adapters = adapters
        self.levels = nn.ModuleList(
            nn.ModuleList([GlobalContext(width), GlobalContext(width)]) for width in channels
        )  # fmt: skip


@MODELS.register_module()
class FGD(Method):
    """Mean over levels of ``focal_distance``, plus relation times the mean over all positions of ``relation_error``.

    Paper: Yang et al., "Focal and Global Knowledge Distillation for Detectors", arXiv 2111.11837. The boxes are the
    ground truth. Where channels differ a 1x1 convolution brings the student's to the teacher's. Padding does not count.

    The authors sum where we average. For L levels of C channels with P positions in all, and K objects per image, their
    weights alpha, beta, gamma and lambda are ours as follows, with a pair weight of 1: foreground = alpha * C * K * L,
    background = beta * C * L, relation = lambda * C * P. Of the attention they sum the part over positions, which is
    gamma * (positions of the level) times ours, and that over channels, gamma * C times ours: no single factor.
    At 800x1344 with C = 256, L = 5, P = 22,400 and K = 7 their one-stage weights 1e-3, 5e-4 and 5e-6 are 9.0, 0.64 and
    28.7. ``target_ratio`` spares the arithmetic but for the parts' relation to each other.

    Args:
        name: of the pair.
        temperature: T > 0 of the attention.
        foreground: weight of the positions on objects.
        background: weight of the others.
        attention: weight of the attention's own difference.
        relation: weight of the global part.
        taps: see ``Method``.

    Raises:
        ConfigError: the temperature cannot be used.
        TapError: the taps put out no maps, or different numbers of them.

    Example:
        >>> FGD('f', tap='neck', relation=3.0).needs
        ('boxes',)
    """

    needs = ('boxes',)

    def __init__(
        self,
        name: str,
        *,
        temperature: float = 0.5,
        foreground: float = 1.0,
        background: float = 0.5,
        attention: float = 1.0,
        relation: float = 1.0,
        **taps: Any,
    ) -> None:
        super().__init__(name, **taps)
        temperature = check_positive(temperature, f'temperature of pair {name!r}', 'The paper has 0.5.')
        self.focal: dict[str, Any] = dict(
            temperature=temperature, foreground=foreground, background=background, attention=attention
        )
        self.relation = relation

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> Blocks:
        ours, theirs = map_shapes(self, student_probe, teacher_probe)
        return Blocks(build_adapters(ours, theirs, self.name), [shape[1] for shape in theirs])

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        module: Any = context.parameters
        return list(adapted_levels(self, context, module.adapters))

    def distance(self, context: StepContext) -> Tensor:
        module: Any = context.parameters
        focal, errors, masks = [], [], []
        for blocks, (ours, theirs) in zip(
            module.levels, adapted_levels(self, context, module.adapters), strict=True
        ):  # fmt: skip
            counted = counted_cells(context, theirs)
            labels = None if counted is None else torch.where(counted, 0, 255)
            focal.append(
                focal_distance(
                    ours, theirs, boxes=context.boxes, image_size=context.image_size, labels=labels, **self.focal
                )
            )
            errors.append(relation_error(ours, theirs, blocks, counted))
            masks.append(counted)
        return torch.stack(focal).mean() + self.relation * mean_over_levels(errors, masks)
