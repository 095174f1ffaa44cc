"""Is each pair written correctly, and do its taps fire and fit together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from kdplugin.distill.pairs import Pair, build_method, check_needs, pair_mistakes, taps_of
from kdplugin.distill.probe import ProbeResult, probe, probe_sizes
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.module_paths import find_module
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of

FAR = 4.0
"""Times by which strides may differ: neighbouring levels of a pyramid, and those after them."""


def check_pair(found: Findings, name: str, entry: Mapping[str, Any]) -> None:
    """Keys, weight and loss of one pair are right."""
    where = f'model.pairs.{name}'
    for mistake in pair_mistakes(name, entry):
        found.error(where, mistake)
    if _check_forms(found, where, entry):
        return
    found.attempt(where, 'the pair to build', build_method, name, entry)
    _check_distributions(found, where, entry)


def _check_distributions(found: Findings, where: str, entry: Mapping[str, Any]) -> None:
    """The four sides of GFL's boxes are not compared as one distribution."""
    taps, loss = [str(tap) for tap in taps_of(entry)], entry.get('loss')
    if isinstance(loss, Mapping) and kind_of(loss) == 'KLDivergenceLoss' and any('gfl_reg' in tap for tap in taps):
        found.warning(
            f'{where}.loss',
            'Expected one distribution for each side of a box but got one for all four of them. Write '
            "loss=dict(type='kdplugin.LocalizationDistillationLoss').",
        )


def _check_forms(found: Findings, where: str, entry: Mapping[str, Any]) -> bool:
    """Tell whether taps or the loss are of a form from which no method can be built, and say so."""
    before, loss = len(found.errors), entry.get('loss')
    if loss is not None and not isinstance(loss, Mapping):
        kind = loss if isinstance(loss, str) else 'kdplugin.CWDLoss'
        found.error(f'{where}.loss', f'Expected one loss as a dict but got {loss!r}. Write loss=dict(type={kind!r}).')
    for key in ('tap', 'student_tap', 'teacher_tap'):
        tap = entry.get(key)
        if tap is not None and not isinstance(tap, str):
            found.error(
                f'{where}.{key}',
                f'Expected one module path as a text but got {tap!r}. Write a pair for each path.',
            )
    return len(found.errors) > before


def check_tap_paths(
    found: Findings, name: str, entry: Mapping[str, Any], student: nn.Module | None, teacher: nn.Module | None
) -> bool:
    """Both taps of one pair are modules; True if so. A tap of a missing model is not looked up."""
    where, before = f'model.pairs.{name}', len(found.errors)
    for owner, model, tap in zip(('student', 'teacher'), (student, teacher), taps_of(entry), strict=True):
        if model is None:
            found.note(where, f'not checked: its {owner} tap, because there is no {owner} to look at.')
        elif tap is not None:
            key = 'tap' if entry.get(f'{owner}_tap') is None else f'{owner}_tap'
            found.attempt(f'{where}.{key}', 'a module path', find_module, model, str(tap), owner)
    return len(found.errors) == before


def check_taps(found: Findings, pairs: Sequence[Pair], student: nn.Module, teacher: nn.Module) -> list[Pair]:
    """Every tap fires and both sides of each pair fit together, classes included; returns the pairs that do."""
    sizes = probe_sizes(student)
    ours, pairs = _probe_side(found, 'student', student, sizes, pairs, lambda pair: pair.student_taps)
    theirs, pairs = _probe_side(found, 'teacher', teacher, sizes, pairs, lambda pair: pair.teacher_taps)
    if ours is None or theirs is None:
        return []
    good = []
    for pair in pairs:
        before = len(found.errors)
        found.attempt(f'model.pairs.{pair.name}', 'a student that suits', check_needs, pair, student)
        guest = Teacher(teacher, checkpoint='', sha256='', tensors=0, parameters=0, probed=theirs)
        found.attempt(f'model.pairs.{pair.name}', 'tensors that fit', pair.method.prepare, ours, theirs, student, guest)
        if len(found.errors) == before:
            good.append(pair)
            _check_strides(found, pair, ours, theirs)
    return good


def strides_of(probed: ProbeResult, taps: Sequence[str]) -> list[float]:
    """Return pixels of the image for each position of every map (N, C, H, W) that taps put out, level by level."""
    if probed.size is None:
        return []
    shapes = [shape for tap in taps for shape in probed.shapes.get(tap, ())]
    return [probed.size[0] / shape[-2] for shape in shapes if len(shape) == 4 and shape[-2] > 0]


def _check_strides(found: Findings, pair: Pair, ours: ProbeResult, theirs: ProbeResult) -> None:
    """Say so where a pair compares maps of very different strides: one is then enlarged to a blur."""
    sides = strides_of(ours, pair.student_taps), strides_of(theirs, pair.teacher_taps)
    far = [(one, other) for one, other in zip(*sides, strict=False) if max(one, other) / min(one, other) > FAR]
    if far:
        one, other = far[0]
        found.warning(
            f'model.pairs.{pair.name}',
            f'Expected taps of about the same stride but the student has {one:g} and the teacher {other:g}. Tap stages '
            'of equal stride.',
        )


def _probe_side(
    found: Findings,
    owner: str,
    model: nn.Module,
    sizes: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    taps: Callable[[Pair], tuple[str, ...]],
) -> tuple[ProbeResult | None, list[Pair]]:
    """Run one model with all taps; if that fails, find out which pairs are to blame and go on with the others."""

    def run(into: Findings, where: str, pairs: Sequence[Pair]) -> ProbeResult | None:
        return into.attempt(where, 'a run', probe, model, [tap for pair in pairs for tap in taps(pair)], owner, sizes)

    result = run(Findings(), owner, pairs)
    if result is not None:
        return result, list(pairs)
    if run(found, owner, []) is None:
        return None, []
    good = [pair for pair in pairs if run(found, f'model.pairs.{pair.name}', [pair])]
    return run(found, owner, good), good
