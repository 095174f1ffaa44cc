"""One image through student and teacher, as a training step would see it but in eval mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from kdplugin.distill.distillation import Distillation, by_teacher, taps_of
from kdplugin.distill.distiller import DistilledStudent, adapters_of
from kdplugin.distill.ground_truth import truth_of
from kdplugin.distill.methods import StepContext
from kdplugin.distill.pairs import Pair
from kdplugin.distill.taps import catch
from kdplugin.distill.terms import precise_all
from kdplugin.errors import ConfigError, DataError
from kdplugin.module_paths import did_you_mean
from kdplugin.reports.seen_pairs import SeenLevel, seen_levels
from kdplugin.visualization.trained_student import Subject


def chosen_pairs(distillation: Distillation, names: Sequence[str], config_file: str) -> list[Pair]:
    """Return the pairs to draw."""
    known = {pair.name: pair for pair in distillation.active}
    if not known:
        raise ConfigError(
            f'Expected pairs with a weight above 0 in {config_file} but got none. There is nothing to look at: add '
            "pairs=dict(name=dict(tap='neck', loss=dict(type='kdplugin.CosineLoss')))."
        )
    for name in names:
        if name not in known:
            raise ConfigError(f'Expected pairs of {sorted(known)} but got {name!r}.{did_you_mean(name, list(known))}')
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


def preprocessed(student: nn.Module, item: Any, name: str) -> tuple[Tensor, Any]:
    preprocess: Any = student.data_preprocessor
    data = preprocess(pseudo_collate([item]), False)
    inputs = data.get('inputs') if isinstance(data, Mapping) else None
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        kind = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError(f'Expected preprocessed images (N, C, H, W) of {name} but got {kind}. Give a config of images.')
    return inputs, data.get('data_samples')


@torch.no_grad()
def look(
    subject: Subject, pairs: Sequence[Pair], inputs: Tensor, samples: Any
) -> Iterator[tuple[Pair, list[SeenLevel]]]:
    """Run both models on one preprocessed batch and yield the levels of each pair for its first image.

    Raises:
        DataError: a tap fires only while the loss is computed and the images have no ground truth.
        TapError: a tap did not fire.
    """
    student, distillation = subject.student, subject.distillation
    args, truth = (inputs, samples), truth_of((inputs, samples), {})
    probed = distillation.student_probe
    assert probed is not None  # noqa: S101 - there are active pairs
    modes = [probed.mode, *(one.probed.mode for one in distillation.teachers.values() if one.probed is not None)]
    if 'loss' in modes and truth['labels'] is None and truth['boxes'] is None:
        raise DataError(
            'Expected images with ground truth, because taps of this config fire only while the loss is computed, but '
            'got none. Leave out IMAGES, and let the validation pipeline load annotations.'
        )
    with catch(student, taps_of(pairs, 'student'), 'student', clone=probed.overwritten) as caught:
        super(DistilledStudent, student).forward(*args, mode=probed.mode)  # type: ignore[misc]
    ours, adapters = precise_all(caught.tensors), adapters_of(student)
    for name, group in by_teacher(pairs).items():
        teacher = distillation.teachers[name]
        theirs = precise_all(teacher.outputs(taps_of(group, 'teacher'), args, {}))
        for pair in group:
            context = StepContext(
                {tap: ours[tap] for tap in pair.student_taps}, {tap: theirs[tap] for tap in pair.teacher_taps},
                student, teacher, adapters[pair.name] if pair.name in adapters else None, **truth,
            )  # fmt: skip
            yield pair, seen_levels(pair, context)
