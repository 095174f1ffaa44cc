"""What distillation from a video transformer adds to one training step of an image student."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from mmengine.dist import barrier, is_main_process
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.distill.diffusion.flow_steps import FlowSteps
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.distill.distillation import Distillation, Losses, taps_of
from kdplugin.distill.pairs import check_needs
from kdplugin.distill.probe import ProbeResult, as_evaluated
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import catch
from kdplugin.distill.terms import Tapped, precise_all
from kdplugin.models.generators.text_encoder import EmbeddingCache, TextEncoder

PROBE_SIDE = 8
"""Latent pixels on each side when taps are probed."""
Ask = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From latents (N, C, H, W), timesteps (N,) and text (N, M, D) to the student's velocity (N, C, H, W)."""


@dataclass
class Prompts:
    """Encoded prompts, from disk.

    Args:
        cache: of all prompts.
        encoder: let go when a training begins; None where the cache alone is used.
        drop: how likely a prompt is replaced by the empty one, so that the student can be guided too.
    """

    cache: EmbeddingCache
    encoder: TextEncoder | None = None
    drop: float = 0.0

    def __call__(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return prompts (N, M, D), some emptied, and the empty prompt (1, M, D), in float32."""
        dropped = torch.rand(len(prompts)) < self.drop if self.drop else torch.zeros(len(prompts), dtype=torch.bool)
        kept = ['' if gone else prompt for gone, prompt in zip(dropped.tolist(), prompts, strict=True)]
        both = self.cache([*kept, '']).to(device, torch.float32)
        return both[:-1], both[-1:]

    def prepare(self, dataset: Any) -> None:
        """Encode all prompts of a dataset, in one process, and let go of the encoder."""
        while not hasattr(dataset, 'prompts') and hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        if is_main_process():
            self.cache.fill([*getattr(dataset, 'prompts', ()), ''])
        barrier()
        if self.encoder is not None:
            self.encoder.release()


@dataclass
class PreparedTeacher:
    """The teacher as a DistillationHook sees it: told when training begins, so that prompts are encoded first."""

    teacher: WanTeacher
    prompts: Prompts

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'teacher':
            raise AttributeError(name)
        return getattr(self.teacher, name)

    def open_cache(self, dataset: Any) -> None:
        self.prompts.prepare(dataset)


@dataclass
class DiffusionDistillation(Distillation):
    """Velocities of a frozen video transformer for one frame, and pairs of features.

    The student's own loss is ``loss_velocity``, the mean squared difference to the teacher's velocity: ``task_weight``
    and ``alpha`` weigh it as they weigh the losses of detectors.

    Args:
        flow: draws what is asked.
        prompts: encodes text.
    """

    flow: FlowSteps = field(default=cast(FlowSteps, None), repr=False)
    prompts: Prompts = field(default=cast(Prompts, None), repr=False)

    @property
    def wan(self) -> WanTeacher:
        """The teacher."""
        return cast(PreparedTeacher, self.teachers['teacher']).teacher

    def prepare(self, student: nn.Module) -> nn.ModuleDict:
        """Probe both models on small latents and return what the active pairs train beside the student, by name."""
        owned = nn.ModuleDict()
        if not self.active:
            return owned
        for pair in self.active:
            check_needs(pair, student)
        self.student_probe = self._probe(student, taps_of(self.active, 'student'))
        found = self._probe_teacher(taps_of(self.active, 'teacher'))
        with preserved_rng():
            for pair in self.active:
                module = pair.method.prepare(self.student_probe, found, student, self.teachers['teacher'])
                if module is not None:
                    owned[pair.name] = module
        return owned

    def _small(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.zeros(1, self.flow.channels, PROBE_SIDE, PROBE_SIDE), torch.zeros(1),
            torch.zeros(1, 1, self.wan.settings['text_dim']),
        )  # fmt: skip

    def _probe(self, student: nn.Module, taps: Sequence[str]) -> ProbeResult:
        device = next(student.parameters()).device
        with preserved_rng(), torch.no_grad(), as_evaluated(student), catch(student, taps, 'student') as caught:
            student(*(value.to(device) for value in self._small()))
            overwritten = caught.overwritten()
        return _result(caught.tensors, overwritten)

    def _probe_teacher(self, taps: Sequence[str]) -> ProbeResult:
        with preserved_rng():
            self.wan.probed = _result(self.wan.outputs(*self._small(), taps=taps)[1], frozenset())
        return self.wan.probed

    def step(
        self,
        student: nn.Module,
        ask: Ask,
        prompt: Sequence[str],
        latents: Sequence[Tensor] | None,
        owned: nn.ModuleDict,
    ) -> Losses:
        """Return ``loss_velocity``, weighted, and the entries of each pair, see ``Distillation.losses``."""
        device = next(student.parameters()).device
        factors = {pair.name: self.factor(pair) for pair in self.active}
        running = [pair for pair in self.active if factors[pair.name] > 0]
        text, empty = self.prompts(prompt, device)
        question = self.flow.draw(self.wan, text, empty, latents)
        args = (question.latents, question.timesteps, text)
        target, tapped = self.wan.outputs(*args, empty=empty, taps=taps_of(running, 'teacher'))
        overwritten = frozenset() if self.student_probe is None else self.student_probe.overwritten
        with catch(student, taps_of(running, 'student'), 'student', clone=overwritten, taps=self.taps) as caught:
            velocity = ask(*args)
        with torch.autocast(device.type, enabled=False):
            own = {'loss_velocity': F.mse_loss(velocity.float(), target)}
        theirs = {'teacher': precise_all(tapped)}
        return self._add_pairs(own, student, caught, factors, running, theirs, (question.latents,), {}, owned)


def _result(tensors: Tapped, overwritten: Iterable[str]) -> ProbeResult:
    shapes = {tap: [tuple(value.shape) for value in values] for tap, values in tensors.items()}
    return ProbeResult('tensor', shapes, frozenset(overwritten), (PROBE_SIDE, PROBE_SIDE))
