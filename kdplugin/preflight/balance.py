"""How much each distillation term weighs beside the task, and whether a term counts twice."""

from __future__ import annotations

import math

import torch

from kdplugin.distill.distillation import Distillation
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.step import STEP, Step

MOST, LEAST = 10.0, 0.001
"""A term above, or below, so many times the task drowns it, or does nothing."""
TOTALS = ('loss_total', 'total_loss', 'loss_sum', 'sum_loss', 'loss_all')
"""Names that say of themselves that they are sums."""


def check_balance(found: Findings, step: Step, distillation: Distillation | None) -> None:
    """No pair outweighs the task by far, and none is lost beside it."""
    if distillation is None:
        return
    pairs = {f'loss_kd_{pair.name}': pair for pair in distillation.active}
    task = sum(value for name, value in step.terms.items() if name not in pairs)
    for name, pair in pairs.items():
        value = step.terms.get(name, 0.0)
        if task <= 0 or value == 0 or pair.calibration is not None or not math.isfinite(value):
            continue
        share, weight = value / task, pair.weight.peak
        if share > MOST or share < LEAST:
            cure = 'Lower' if share > MOST else 'Raise'
            found.warning(
                f'model.pairs.{pair.name}.weight',
                f'Expected a term of {LEAST:g} to {MOST:g} times the task but got {share:.3g} times ({value:.4g} '
                f'beside {task:.4g}, weight {weight:g}). {cure} the weight ({weight / share:.3g} makes them equal), '
                'or write target_ratio=0.5.',
            )


def check_counted_once(found: Findings, step: Step) -> None:
    """No term of the student's own is the sum of the others: mmengine adds every name that contains 'loss'."""
    values = {
        name: float(value.detach() if isinstance(value, torch.Tensor) else sum(one.detach() for one in value))
        for name, value in step.losses.items()
        if 'loss' in name and not name.startswith('loss_kd_') and _is_loss(value)
    }
    for name, value in values.items():
        rest = sum(other for key, other in values.items() if key != name)
        plain = name.rpartition('.')[2]
        if plain in TOTALS or (len(values) > 2 and value > 0 and math.isclose(value, rest, rel_tol=1e-5)):
            found.error(
                STEP,
                f'Expected every loss once but {name} is the sum of others, and mmengine adds every name that contains '
                "'loss'. Return it under a name without that word.",
            )
        elif plain == 'loss':
            found.warning(
                STEP,
                f"Expected names such as 'loss_cls' but got {name!r}, which mmengine's total overwrites in the log. "
                'Rename the term.',
            )


def _is_loss(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, list | tuple) and all(isinstance(one, torch.Tensor) and one.numel() == 1 for one in value)
