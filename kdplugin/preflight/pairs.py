"""Is each pair written correctly, and do its taps fire and fit together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from kdplugin.distill.pairs import Pair, build_method, check_needs, pair_mistakes, parse_pair, taps_of
from kdplugin.distill.probe import ProbeResult, probe, probe_sizes
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.module_paths import find_module
from kdplugin.preflight.findings import Findings


def check_pair(
    found: Findings, name: str, entry: Mapping[str, Any], student: nn.Module | None, teacher: nn.Module | None
) -> Pair | None:
    """Keys, weight, loss and both tap paths of one pair are right; a tap of a missing model is not looked up."""
    where, before = f'pair {name}', len(found.errors)
    for mistake in pair_mistakes(name, entry):
        found.error(where, mistake)
    found.attempt(where, 'the pair to build', build_method, name, entry)
    for owner, model, tap in zip(('student', 'teacher'), (student, teacher), taps_of(entry), strict=True):
        if model is None:
            found.note(where, f'not checked: its {owner} tap, because there is no {owner} to look at.')
        elif tap is not None:
            found.attempt(where, 'a module path', find_module, model, str(tap), owner)
    return parse_pair(name, entry) if len(found.errors) == before else None


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
        found.attempt(f'pair {pair.name}', 'a student that suits', check_needs, pair, student)
        guest = Teacher(teacher, checkpoint='', sha256='', tensors=0, parameters=0, probed=theirs)
        found.attempt(f'pair {pair.name}', 'tensors that fit', pair.method.prepare, ours, theirs, student, guest)
        if len(found.errors) == before:
            good.append(pair)
    return good


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
    good = [pair for pair in pairs if run(found, f'pair {pair.name}', [pair])]
    return run(found, owner, good), good
