"""What distillation adds to one training step of a student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kdplugin.distill.pairs import Pair, adapters_for
from kdplugin.distill.probe import ProbeResult, probe, probe_sizes
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import catch
from kdplugin.distill.teacher import Teacher
from kdplugin.errors import TapError

Losses = dict[str, Any]


@dataclass
class Distillation:
    """Teacher, pairs and settings of one student; copies of the student carry None in its place.

    Args:
        pairs: all pairs of the config.
        teacher: None when the config has no pairs.
        task_weight: factor of the student's own loss terms.
        settings: the config as plain values, kept in checkpoints.
        frozen: names of the student's frozen modules and parameters.
        attended: a DistillationHook looks after checkpoints and reports.
    """

    pairs: list[Pair]
    teacher: Teacher | None
    task_weight: float
    settings: dict[str, Any]
    frozen: list[str]
    student_probe: ProbeResult | None = None
    attended: bool = False
    checked: bool = field(default=False, repr=False)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    @property
    def active(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.weight > 0]

    def prepare(self, student: nn.Module) -> nn.ModuleDict:
        """Probe both models and return the adapters that the active pairs need, by pair name."""
        adapters = nn.ModuleDict()
        if not self.active or self.teacher is None:
            return adapters
        taps = list(dict.fromkeys(pair.student_tap for pair in self.active))
        sizes = probe_sizes(student)
        self.student_probe = probe(student, taps, 'student', sizes)
        self.teacher.probed = probe(self.teacher.module, self.teacher_taps, 'teacher', sizes)
        with preserved_rng():
            for pair in self.active:
                layers = adapters_for(pair, self.student_probe, self.teacher.probed)
                if layers is not None:
                    adapters[pair.name] = layers
        return adapters

    @property
    def teacher_taps(self) -> list[str]:
        return list(dict.fromkeys(pair.teacher_tap for pair in self.active))

    def losses(
        self,
        student: nn.Module,
        forward: Callable[..., Losses],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        adapters: nn.ModuleDict,
    ) -> Losses:
        """Return the student's own losses, weighted, and one entry for each pair.

        ``loss_kd_<name>`` is trained; ``kd_<name>_raw``, ``kd_<name>_weight`` and ``kd_task`` are only logged.
        """
        if not self.active or self.teacher is None or self.student_probe is None:
            return self._weigh_task(forward(*args, **kwargs))
        teacher = self.teacher.outputs(self.teacher_taps, args, kwargs)
        taps = list(dict.fromkeys(pair.student_tap for pair in self.active))
        with catch(student, taps, 'student', clone=self.student_probe.overwritten) as caught:
            losses = self._weigh_task(forward(*args, **kwargs))
        self._check_once(caught.overwritten(), caught.tensors, adapters)
        losses['kd_task'] = _total(losses).detach()
        labels = segmentation_labels(args, kwargs)
        for pair in self.active:
            layers = adapters[pair.name] if pair.name in adapters else None
            raw = pair.distance(caught.tensors[pair.student_tap], teacher[pair.teacher_tap], layers, labels)
            losses[f'loss_kd_{pair.name}'] = pair.weight * raw
            losses[f'kd_{pair.name}_raw'] = raw.detach()
            losses[f'kd_{pair.name}_weight'] = raw.new_tensor(pair.weight)
        return losses

    def _weigh_task(self, losses: Losses) -> Losses:
        if self.task_weight == 1:
            return losses
        return {name: _scale(value, self.task_weight) if 'loss' in name else value for name, value in losses.items()}

    def _check_once(
        self, overwritten: frozenset[str], tensors: Mapping[str, list[Tensor]], adapters: nn.ModuleDict
    ) -> None:
        if self.checked or not torch.is_grad_enabled():
            return
        if overwritten:
            raise TapError(
                f'Expected the outputs of student taps to stay as they are but {sorted(overwritten)} are overwritten '
                'by an in-place operation that the probe did not see. Tap the module after it.'
            )
        for pair in self.active:
            if not any(value.requires_grad for value in tensors[pair.student_tap]):
                raise TapError(
                    f'Expected a gradient at student tap {pair.student_tap!r} of pair {pair.name!r} but the tensor '
                    'has none, so the pair would train nothing. Unfreeze a module before it or tap a later one.'
                )
        if adapters and not self.attended:
            print_log(
                'Expected a DistillationHook but the run has none, so checkpoints leave the adapters out and a '
                "resumed run starts them anew. Add custom_hooks=[dict(type='kdplugin.DistillationHook')].",
                logger='current',
                level=logging.WARNING,
            )
        self.checked = True


def _scale(value: Any, weight: float) -> Any:
    return value * weight if isinstance(value, Tensor) else [item * weight for item in value]


def _total(losses: Losses) -> Tensor:
    """Add up what mmengine's ``parse_losses`` would add up."""
    return sum(  # type: ignore[return-value]
        value.mean() if isinstance(value, Tensor) else sum(item.mean() for item in value)
        for name, value in losses.items()
        if 'loss' in name
    )


def segmentation_labels(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the labels (N, H, W) of a batch of mmseg data samples, or None if it has none."""
    samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
    if not samples or not all('gt_sem_seg' in sample for sample in samples):
        return None
    return torch.cat([sample.gt_sem_seg.data for sample in samples])
