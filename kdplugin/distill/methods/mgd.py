"""MGD: the student's features, part of them hidden, must suffice to generate the teacher's.

N image, C channel, H W position on the grid of a level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from kdplugin.distill.adapters import build_adapters
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.maps import adapted_levels, counted_cells, map_shapes, mean_over_levels
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError
from kdplugin.losses.base import Ignored, comparable
from kdplugin.registry import MODELS


def generation_error(student: Tensor, teacher: Tensor, mask: Tensor, generator: nn.Module) -> Tensor:
    """Return (N, H, W), the mean over channels of (generator(mask * student) - teacher)^2.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them.
        mask: (N, 1, H, W), 0 where the student's features are hidden, else 1.
        generator: (N, C, H, W) to the same shape.

    Raises:
        TapError: the shapes differ.
    """
    student, teacher = comparable(student, teacher)
    return (generator(student * mask) - teacher).square().mean(1)


def random_mask(features: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Return (N, 1, H, W) of ones, each turned to 0 with probability ``ratio``; drawn on the CPU."""
    drawn = torch.rand(len(features), 1, *features.shape[2:], generator=generator)
    return (drawn >= ratio).to(features)


class Generators(nn.Module):
    """One generator for each level, the adapters before them, and how many masks they have seen.

    The count is part of the state, so a resumed run goes on with the masks that it would have drawn.

    Args:
        adapters: of the student's channels, None where they agree.
        channels: of each level of the teacher.
    """

    def __init__(self, adapters: nn.ModuleList | None, channels: list[int]) -> None:
        super().__init__()
        self.adapters = adapters
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for width in channels
        )
        self.steps = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


@MODELS.register_module()
class MGD(Method):
    """Mean over the positions of all levels of ``generation_error``, in features of which a share is hidden.

    Paper: Yang et al., "Masked Generative Distillation", arXiv 2205.01529. L = (G(M * A(S)) - T)^2: A is a 1x1
    convolution where channels differ, M hides each position with probability ``mask_ratio``, G is conv3x3, ReLU,
    conv3x3; A and G are trained, one of each per level.

    The authors sum over channels and positions and divide by N, level by level, so for levels of C channels theirs is
    alpha * C * (positions of all levels) * ours. Their alpha 2e-5 for one-stage detectors, at 800x1344 with C = 256 and
    five levels (22,400 positions), is our weight 115; their 5e-7 for two-stage detectors on P2 to P5 (89,250 positions)
    is 11.4; 2e-5 on a ResNet-101's 2048 channels at 64x64 (512x512, stride 8) is 168. ``target_ratio`` spares the
    arithmetic.

    Masks come from a generator of their own, seeded by ``seed``, the number of the mask and the rank of the process:
    the run's own random numbers stay as they are, and a resumed run draws what it would have drawn. Padding and
    ``ignore_index`` do not count in the mean.

    Args:
        name: of the pair.
        mask_ratio: share of positions to hide, lambda of the paper: 0 <= lambda < 1. The authors take 0.65 for
            one-stage and 0.45 for two-stage detectors, 0.75 for segmentation.
        seed: of the masks.
        ignore_index: mmseg's label of the positions that do not count; None counts all, several may be given.
        taps: see ``Method``.

    Raises:
        ConfigError: the ratio cannot be used.
        TapError: the taps put out no maps, or different numbers of them.

    Example:
        >>> MGD('m', tap='neck', mask_ratio=0.65).student_taps
        ('neck',)
    """

    def __init__(
        self, name: str, *, mask_ratio: float = 0.65, seed: int = 0, ignore_index: Ignored = 255, **taps: Any
    ) -> None:
        super().__init__(name, **taps)
        if not 0 <= mask_ratio < 1:
            raise ConfigError(
                f'Expected 0 <= mask_ratio < 1 in pair {name!r} but got {mask_ratio}. The paper has 0.65 for one-stage '
                'detectors.'
            )
        self.mask_ratio = mask_ratio
        self.seed = seed
        self.ignore_index = ignore_index

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> Generators:
        ours, theirs = map_shapes(self, student_probe, teacher_probe)
        return Generators(build_adapters(ours, theirs, self.name), [shape[1] for shape in theirs])

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        module: Any = context.parameters
        return list(adapted_levels(self, context, module.adapters))

    def distance(self, context: StepContext) -> Tensor:
        module: Any = context.parameters
        generator = self._generator(module)
        errors, counted = [], []
        for level, (ours, theirs) in enumerate(adapted_levels(self, context, module.adapters)):
            mask = random_mask(ours, self.mask_ratio, generator)
            errors.append(generation_error(ours, theirs, mask, module.levels[level]))
            counted.append(counted_cells(context, theirs, self.ignore_index))
        return mean_over_levels(errors, counted)

    def _generator(self, module: Generators) -> torch.Generator:
        """Return the generator of the next masks, and count them."""
        seed = np.random.SeedSequence((self.seed, module.steps, get_rank())).generate_state(1)[0]
        module.steps += 1
        return torch.Generator().manual_seed(int(seed))
