"""What distillation adds to one training step of a student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kdplugin.distill.methods import StepContext
from kdplugin.distill.pairs import Pair
from kdplugin.distill.probe import ProbeResult, probe, probe_sizes
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import catch
from kdplugin.distill.teacher import Teacher, _first_tensor
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import precise

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
        for pair in self.active:
            check_needs(pair, student)
        sizes = probe_sizes(student)
        self.student_probe = probe(student, self.student_taps, 'student', sizes)
        self.teacher.probed = probe(self.teacher.module, self.teacher_taps, 'teacher', sizes)
        with preserved_rng():
            for pair in self.active:
                layers = pair.method.prepare(self.student_probe, self.teacher.probed, student, self.teacher)
                if layers is not None:
                    adapters[pair.name] = layers
        return adapters

    @property
    def student_taps(self) -> list[str]:
        return list(dict.fromkeys(tap for pair in self.active for tap in pair.student_taps))

    @property
    def teacher_taps(self) -> list[str]:
        return list(dict.fromkeys(tap for pair in self.active for tap in pair.teacher_taps))

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
        with catch(student, self.student_taps, 'student', clone=self.student_probe.overwritten) as caught:
            losses = self._weigh_task(forward(*args, **kwargs))
        self._check_once(caught.overwritten(), caught.tensors, adapters)
        losses['kd_task'] = _total(losses).detach()
        given = truth_of(args, kwargs)
        for pair in self.active:
            layers = adapters[pair.name] if pair.name in adapters else None
            context = StepContext(
                {tap: precise_all(caught.tensors[tap]) for tap in pair.student_taps},
                {tap: precise_all(teacher[tap]) for tap in pair.teacher_taps},
                student, self.teacher, layers, **given,
            )  # fmt: skip
            with torch.autocast(_first_tensor(args, kwargs).device.type, enabled=False):
                raw = pair.method.distance(context)
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
            if not any(value.requires_grad for tap in pair.student_taps for value in tensors[tap]):
                taps = ', '.join(map(repr, pair.student_taps))
                raise TapError(
                    f'Expected a gradient at student tap {taps} of pair {pair.name!r} but the tensor '
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


def precise_all(tensors: list[Tensor]) -> list[Tensor]:
    """Return half precision as float32, all else as it is."""
    return [precise(value) if value.is_floating_point() else value for value in tensors]


def is_detector(model: nn.Module) -> bool:
    """Tell whether a model is mmdet's, so that its data samples carry boxes."""
    return any(base.__module__.split('.')[0] == 'mmdet' for base in type(model).__mro__)


def check_needs(pair: Pair, student: nn.Module) -> None:
    """Raise ConfigError if a pair needs boxes and the student's batches have none."""
    if 'boxes' in pair.method.needs and not is_detector(student):
        raise ConfigError(
            f'Expected a detector of mmdet as student of pair {pair.name!r}, because {pair.method.label} needs boxes, '
            f'but got {type(student).__name__}. Choose another method.'
        )


def truth_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what a batch says beside its images: samples, labels, boxes, and the size of the padded batch."""
    samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
    height, width = _first_tensor(args, kwargs).shape[-2:]
    return dict(
        data_samples=samples, labels=segmentation_labels(samples), boxes=object_boxes(samples),
        image_size=(height, width),
    )  # fmt: skip


def segmentation_labels(samples: Any) -> Tensor | None:
    """Return the labels (N, H, W) of a batch of mmseg data samples, or None if it has none."""
    if not samples or not all('gt_sem_seg' in sample for sample in samples):
        return None
    return torch.cat([sample.gt_sem_seg.data for sample in samples])


def object_boxes(samples: Any) -> list[Tensor] | None:
    """Return the boxes (M, 4) of each image of a batch of mmdet data samples, or None if it has none."""
    if not samples or not all('gt_instances' in sample and 'bboxes' in sample.gt_instances for sample in samples):
        return None
    boxes = [sample.gt_instances.bboxes for sample in samples]
    return [value if isinstance(value, Tensor) else value.tensor for value in boxes]
