"""The text block a distillation run opens with: whose teacher, what trains, who looks at what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from kdplugin.reports.tables import count, new_table, number, render


@dataclass(frozen=True)
class TeacherMatch:
    """How much of the teacher came out of its checkpoint, by tensors and by parameters.

    Args:
        notes: what else to say of it: how it runs, what it measured.
    """

    checkpoint: str
    sha256: str
    matched_tensors: int
    total_tensors: int
    matched_parameters: int
    total_parameters: int
    name: str = 'teacher'
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by what happens to them; trainable and frozen are the student's own, without adapters."""

    trainable: int
    frozen: int
    adapters: int


@dataclass(frozen=True)
class PairLine:
    """One distillation pair as a person reads it.

    Args:
        weight: a number, or how it runs over time as text, such as ``'0 to 0.3 over 500 iterations'``.
        adapter: its shapes, such as ``'24x20x20 -> 64x20x20'``, or empty where the tensors already fit.
        teacher: whose, where there are several.
    """

    name: str
    student_tap: str
    teacher_tap: str
    loss: str
    weight: float | str
    adapter: str = ''
    teacher: str = ''


def opening_report(teachers: Sequence[TeacherMatch], counts: ParameterCounts, pairs: Sequence[PairLine]) -> str:
    """Return the block that a run prints before its first step.

    Args:
        teachers: none where no pair ever has a weight, so that no teacher is run.
        counts: parameters of the student and the adapters.
        pairs: in the order of the config.
    """
    lines = ['Knowledge distillation', *(line for teacher in teachers for line in _teacher_lines(teacher))]
    if not teachers:
        lines.append('  teacher     not run: no pair has a weight above 0')
    lines.append(
        f'  student     {count(counts.trainable)} trainable, {count(counts.frozen)} frozen, '
        f'adapters {count(counts.adapters)} (left behind on export)'
    )
    if not pairs:
        lines.append('  pairs       none: this trains exactly as the plain config does')
        return render(Text('\n'.join(lines)))
    table = new_table('pair', 'weight', 'loss', 'student tap <- teacher tap', 'adapter')
    for column in table.columns[1:]:
        column.justify, column.no_wrap = 'left', False
    for pair in pairs:
        weight = pair.weight if isinstance(pair.weight, str) else f'{pair.weight:g}'
        same = pair.student_tap == pair.teacher_tap
        taps = pair.student_tap if same else f'{pair.student_tap}\n<- {pair.teacher_tap}'
        taps += f' ({pair.teacher})' if pair.teacher else ''
        table.add_row(pair.name, weight, pair.loss, taps, pair.adapter or 'none')
    return render(Text('\n'.join(lines)), table)


def _teacher_lines(teacher: TeacherMatch) -> list[str]:
    return [
        f'  {teacher.name:<11} {teacher.checkpoint}',
        f'              sha256 {teacher.sha256}',
        f'              matched {_share(teacher.matched_tensors, teacher.total_tensors, "tensors")}',
        f'              matched {_share(teacher.matched_parameters, teacher.total_parameters, "parameters")}',
        f'              {count(teacher.total_parameters)} parameters, frozen',
        *(f'              {note}' for note in teacher.notes),
    ]


def _share(part: int, whole: int, unit: str) -> str:
    percent = 100 * part / whole if whole else 0.0
    return f'{number(part, 0)} of {number(whole, 0)} {unit} ({percent:.1f} %)'
