"""A student of a video transformer made ready for one step, as far as this machine can hold its teacher."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation
from kdplugin.distill.diffusion.diffusion_distiller import attach_diffusion, build_diffusion
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.distill.pairs import Pair
from kdplugin.models.generators.text_encoder import DTYPES
from kdplugin.preflight.diffusion import TEACHER, TEXT
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.optimizers import gigabytes
from kdplugin.preflight.step import STEP
from kdplugin.reports.tables import count

SHARE = 0.4
"""Of the machine's memory, what a teacher and its text encoder may take for a look."""


def ready_diffusion(
    found: Findings, config: Config, student: nn.Module, frozen: Sequence[str], folder: str
) -> DiffusionDistillation | None:
    """Return what a student learns, attached to it; None where that was not possible or is too large.

    Every pair is prepared by itself first, so that each is told what is wrong with it.

    Args:
        found: collects the findings.
        config: of the training.
        student: as it is built.
        frozen: names of its frozen parts.
        folder: for the encoded prompts of this look.
    """
    settings: dict[str, Any] = config.model.to_dict()
    teacher = found.attempt(TEACHER, 'the teacher to open', lambda: WanTeacher(**settings['teacher']))
    if teacher is None:
        return None
    found.note(
        TEACHER, f'{teacher.tensors} tensors of the right names and shapes, {count(teacher.parameters)} parameters.'
    )
    if too_large(found, teacher, settings['text_encoder']):
        return None
    settings.update(frozen=[], text_encoder={**settings['text_encoder'], 'cache': folder})
    distillation = found.attempt(TEXT, 'what the student is to learn', build_diffusion, student, settings)
    if distillation is None:
        return None
    distillation.frozen, distillation.attended = list(frozen), True
    distillation.pairs = list(_fitting(found, distillation, student))
    distillation.at_peak()
    attached = found.attempt(STEP, 'the student to distil', attach_diffusion, student, distillation)
    return None if attached is None else distillation


def _fitting(found: Findings, distillation: DiffusionDistillation, student: nn.Module) -> Iterator[Pair]:
    for pair in distillation.pairs:
        where, before = f'model.pairs.{pair.name}', len(found.errors)
        if pair.weight.peak == 0:
            found.note(where, 'has weight 0: it is not run.')
        found.attempt(where, 'taps that fire and fit', replace(distillation, pairs=[pair]).prepare, student)
        if len(found.errors) == before:
            yield pair


def too_large(found: Findings, teacher: WanTeacher, text: Mapping[str, Any]) -> bool:
    """Tell whether this machine should not load a teacher with its text encoder for a look, and say so."""
    needed = teacher.parameters * DTYPES[teacher.dtype].itemsize
    encoder = Path(text.get('path') or teacher.folder.root) / 'text_encoder'
    needed += sum(file.stat().st_size for file in encoder.rglob('*') if file.is_file())
    there = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if needed <= SHARE * there:
        return False
    found.note(
        STEP,
        f'not checked: one step, because teacher and text encoder take {gigabytes(needed)} and this machine has '
        f'{gigabytes(there)}. python tools/production_test.py --teacher {teacher.checkpoint} takes one where they fit.',
    )
    return True
