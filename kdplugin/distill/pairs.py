"""A pair: which layer of the student looks at which layer of the teacher, by which loss, how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from kdplugin.distill.adapters import LevelAdapters, build_adapters, match_size
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import DistillationLoss
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import MODELS as OWN_MODELS

GIVEN = ('labels',)
"""What the engine hands to losses beside the two tensors."""
PAIR_KEYS = ('tap', 'student_tap', 'teacher_tap', 'loss', 'weight')


@dataclass(frozen=True)
class Pair:
    """One distillation term.

    Args:
        name: as in the config; the term is logged as ``loss_kd_<name>``.
        student_tap: module path in the student.
        teacher_tap: module path in the teacher.
        loss: maps tensors of both sides to one scalar.
        weight: factor of the term in the total.
    """

    name: str
    student_tap: str
    teacher_tap: str
    loss: DistillationLoss
    weight: float

    def distance(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        adapters: nn.Module | None,
        labels: Tensor | None,
    ) -> Tensor:
        """Return the mean over levels of the loss, computed in float32 also under autocast."""
        if len(student) != len(teacher):
            raise TapError(
                f'Expected pair {self.name!r} to see as many student as teacher tensors but got {len(student)} '
                f'and {len(teacher)}. Tap layers that run equally often.'
            )
        terms = []
        with torch.autocast(student[0].device.type, enabled=False):
            for level, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
                ours = ours.float()
                if adapters is not None:
                    ours = adapters[level](ours)  # type: ignore[index]
                if self.loss.compares != 'relations':
                    ours = match_size(ours, theirs)
                terms.append(self.loss(ours, theirs.float(), labels=labels))
        return torch.stack(terms).mean()


def parse_pairs(config: Mapping[str, Any]) -> list[Pair]:
    """Read the ``pairs`` of a config.

    Raises:
        ConfigError: unknown or missing key, bad weight, a name that mmengine's loss sum would count twice.
    """
    return [parse_pair(name, dict(entry)) for name, entry in config.items()]


def parse_pair(name: str, entry: Mapping[str, Any]) -> Pair:
    """Read one pair; raises the first of ``pair_mistakes``, or what ``build_loss`` raises."""
    for mistake in pair_mistakes(name, entry):
        raise mistake
    student, teacher = taps_of(entry)
    return Pair(name, str(student), str(teacher), build_loss(name, entry), float(entry.get('weight', 1.0)))


def taps_of(entry: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the student's and the teacher's tap of a pair's config, None for one that is not there."""
    student, teacher = (entry.get(f'{side}_tap', entry.get('tap')) for side in ('student', 'teacher'))
    return student, teacher


def pair_mistakes(name: str, entry: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with a pair's config before its loss is built."""
    for key in entry:
        if key not in PAIR_KEYS:
            yield ConfigError(
                f'Expected keys {list(PAIR_KEYS)} in pair {name!r} but got {key!r}.{did_you_mean(key, PAIR_KEYS)}'
            )
    if 'loss' in name or '.' in name:
        yield ConfigError(
            f"Expected a pair name without 'loss' or a dot but got {name!r}. mmengine adds every logged name that "
            "contains 'loss' to the total. Rename the pair."
        )
    if None in taps_of(entry) or 'loss' not in entry:
        yield ConfigError(
            f'Expected pair {name!r} to have loss and tap (or student_tap and teacher_tap) but got {sorted(entry)}. '
            "Write dict(tap='backbone', loss=dict(type='kdplugin.CosineLoss'), weight=1.0)."
        )
    try:
        check_weight(entry.get('weight', 1.0), f'pair {name!r}')
    except ConfigError as error:
        yield error


def build_loss(name: str, entry: Mapping[str, Any]) -> DistillationLoss:
    """Build the loss of a pair's config.

    Raises:
        ConfigError: an unknown type, arguments that the type does not take, or something that is no distillation loss.
    """
    settings = entry['loss']
    try:
        loss = MODELS.build(settings)
    except KeyError:
        kind = str(settings.get('type'))
        known = sorted(f'kdplugin.{key}' for key in OWN_MODELS.module_dict if key.endswith('Loss'))
        raise ConfigError(
            f'Expected a known loss type in pair {name!r} but got {kind!r}.{did_you_mean(kind, known)} '
            f'The losses of kdplugin are {known}.'
        ) from None
    except TypeError as error:
        raise ConfigError(
            f'Expected a loss that can be built in pair {name!r} but got {settings}: {error}. Correct its arguments.'
        ) from None
    if not isinstance(loss, DistillationLoss):
        raise ConfigError(
            f'Expected a distillation loss in pair {name!r} but got {type(loss).__name__}. '
            "Write the type with its prefix, such as 'kdplugin.KLDivergenceLoss'."
        )
    lacking = [key for key in loss.needs if key not in GIVEN]
    if lacking:
        raise ConfigError(
            f'Expected a loss in pair {name!r} that can do with {", ".join(GIVEN)} but {type(loss).__name__} needs '
            f'{", ".join(lacking)}, which pairs do not hand on. Choose another loss.'
        )
    return loss


def check_weight(weight: Any, owner: str) -> float:
    """Return a weight as float, or raise ConfigError unless it is a number >= 0."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float('inf'):
        raise ConfigError(f'Expected a finite weight >= 0 in {owner} but got {weight!r}. Give a number.')
    return float(weight)


def check_shapes(pair: Pair, student: ProbeResult, teacher: ProbeResult) -> None:
    """Compare what both taps of a pair put out.

    Raises:
        TapError: different numbers of tensors, tensors without channels, or other class counts for a loss on logits.
    """
    ours, theirs = student.shapes[pair.student_tap], teacher.shapes[pair.teacher_tap]
    if len(ours) != len(theirs):
        raise TapError(
            f'Expected pair {pair.name!r} to see as many student as teacher tensors but {pair.student_tap!r} gives '
            f'{len(ours)} and {pair.teacher_tap!r} gives {len(theirs)}. Tap layers with equally many outputs.'
        )
    for one, other in zip(ours, theirs, strict=True):
        if min(len(one), len(other)) < 2:
            raise TapError(
                f'Expected pair {pair.name!r} to see tensors with channels (N, C, ...) but got {one} and {other}. Tap '
                'layers that put out features or logits.'
            )
        if pair.loss.compares == 'logits' and one[1] != other[1]:
            raise TapError(
                f'Expected student and teacher of pair {pair.name!r} to predict the same classes but '
                f'{pair.student_tap!r} has {one[1]} channels and {pair.teacher_tap!r} has {other[1]}. '
                'Use a teacher trained on the same classes, or distil features instead.'
            )


def adapters_for(pair: Pair, student: ProbeResult, teacher: ProbeResult) -> LevelAdapters | None:
    """Check what both taps of a pair put out and size its adapters; relations are compared as they come.

    Raises:
        TapError: the tensors cannot be compared.
    """
    check_shapes(pair, student, teacher)
    if pair.loss.compares == 'relations':
        return None
    return build_adapters(student.shapes[pair.student_tap], teacher.shapes[pair.teacher_tap], pair.name)
