"""The table that closes each validation interval: what the student was paid for, and how well it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdplugin.reports.tables import MISSING, new_table, render


@dataclass(frozen=True)
class Term:
    """One distillation term: ``weighted`` = ``weight`` x ``raw`` is what the total holds.

    Args:
        raw: None where it was not measured, because the weight was 0 throughout.
        temperature: None where the loss has none.
    """

    name: str
    raw: float | None
    weight: float
    weighted: float
    temperature: float | None = None


def training_table(
    step_label: str,
    lr: float,
    seconds: float,
    task: float,
    terms: Sequence[Term],
    total: float,
    metrics: Mapping[str, float],
) -> str:
    """Return one table: learning rate, seconds, task term, each raw KD term with weight and T, total, metric.

    Args:
        step_label: where the run is, such as ``'iteration 500 of 2000'``.
        lr: the current learning rate of the first parameter group.
        seconds: time of one training iteration, averaged over the interval.
        task: the weighted task losses.
        terms: in the order of the config.
        total: what was differentiated; ``share`` is each part of it.
        metrics: of the validation that just ended; empty before the first one.
    """
    table = new_table(
        'term', 'raw', 'weight', 'T', 'in the total', 'share',
        title=f'{step_label}   lr {lr:.3g}   {seconds:.3f} s per iteration',
        caption='   '.join(f'{name} {value:.4g}' for name, value in metrics.items()) or 'no validation yet',
    )  # fmt: skip
    table.add_row('task', MISSING, MISSING, MISSING, _digits(task), _share(task, total))
    for term in terms:
        temperature = MISSING if term.temperature is None else f'{term.temperature:g}'
        table.add_row(
            f'kd {term.name}', MISSING if term.raw is None else _digits(term.raw), f'{term.weight:g}', temperature,
            _digits(term.weighted), _share(term.weighted, total),
        )  # fmt: skip
    table.add_section()
    table.add_row('total', MISSING, MISSING, MISSING, _digits(total), '')
    return render(table)


def _digits(value: float) -> str:
    """Write four significant digits: terms run from 1e-5 (means over pixels) to 1e3 (sums)."""
    return f'{value:#.4g}'


def _share(part: float, total: float) -> str:
    return f'{100 * part / total:.1f} %' if total and math.isfinite(part / total) else MISSING
