"""Score, choose, cut, fit, and say what it is worth: the one library call of tools/prune_heads.py."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kdplugin import launch
from kdplugin.errors import ConfigError
from kdplugin.pruning.budgets import Budget
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.compensation import RIDGE, collect
from kdplugin.pruning.compensation import compensate as fit_parts
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.planning import Choice, make_pruning_plan
from kdplugin.pruning.surgery import prune_state
from kdplugin.pruning_run.subject import Subject, calibration_of, fragment, open_subject, pruned_backbone
from kdplugin.reports.backbone_cost import compare_costs
from kdplugin.reports.head_importance import save_importance
from kdplugin.reports.tables import count, new_table, number, render
from kdplugin.weights.project import hash_source
from kdplugin.weights.reading.io import write_checkpoint, write_text

DATA_FREE = ('magnitude', 'random')
"""Scorers that need no calibration batches."""


def prune_and_report(
    config: str,
    checkpoint: str,
    out: str | Path,
    *,
    heads: int | float | None = None,
    neurons: int | float | None = None,
    scope: str = 'block',
    min_heads: int = 1,
    min_neurons: int = 1,
    keep: Sequence[tuple[int, Sequence[int]]] = (),
    scorer: str = 'taylor',
    neuron_scorer: str = 'taylor',
    batches: int = 16,
    batch_size: int = 2,
    compensate: Collection[str] = (),
    ridge: float = RIDGE,
    seed: int = 0,
    size: int | None = None,
    latency_size: int | None = None,
    trust_checkpoint: bool = False,
    cfg_options: list[str] | None = None,
    progress: bool = True,
) -> str:
    """Prune a trained model; write plan.json, pruned.pth, pruned_config.py, report.json and heads.png.

    Args:
        config, checkpoint: see ``open_subject``.
        out: folder to write.
        heads, neurons: what stays of each block, as a number or a share; None for all.
        scope, min_heads, min_neurons, keep: see ``Budget``; ``keep`` is for heads.
        scorer, neuron_scorer, seed: see ``make_pruning_plan``.
        batches, batch_size: of the training data.
        compensate, ridge: see ``kdplugin.pruning.compensation.compensate``.
        size, latency_size: pixels of the images that costs are told for; None for ``img_size`` of the backbone, 0 for
            no costs.
        trust_checkpoint: see ``read_checkpoint``.
        cfg_options: as on the command line.
        progress: show bars.

    Returns:
        the report as text.

    Raises:
        ConfigError, CheckpointError: see the functions named above.
    """
    out = Path(out)
    subject = open_subject(config, checkpoint, launch.parse_options(cfg_options), trust_checkpoint or None)
    used = {scorer if heads is not None else None, neuron_scorer if neurons is not None else None} - {None}
    needed = bool(compensate) or not used <= set(DATA_FREE)
    calibration = calibration_of(subject, batches if needed else 0, batch_size, seed, progress)
    sizes = calibration.blocks.sizes
    choice = make_pruning_plan(
        calibration,
        heads=None if heads is None else Budget(_count(heads, sizes.num_heads), scope, min_heads, dict(keep)),
        neurons=None if neurons is None else Budget(_count(neurons, sizes.hidden), scope, min_neurons),
        head_scorer=scorer,
        neuron_scorer=neuron_scorer,
        seed=seed,
        about={'teacher': str(checkpoint), 'sha256': hash_source(checkpoint, subject.source), 'config': str(config)},
    )
    plan = choice.plan.replaced(prefix=subject.prefix)
    errors = write_pruned(subject, calibration, plan, out, compensate, ridge)
    costs = {} if size == 0 else measure_costs(subject, plan, size, latency_size)
    told = {'checkpoint': str(checkpoint), 'errors': errors, 'costs': costs}
    write_records(subject, choice, plan, out, told, compensate)
    return report_text(subject, plan, costs, errors, out)


def _count(kept: int | float, total: int) -> int:
    """Return a number of units; of a share the nearest one.

    Raises:
        ConfigError: a share above 1 or none.
    """
    if isinstance(kept, int):
        return kept
    if not 0 < kept <= 1:
        raise ConfigError(f'Expected a share above 0 and at most 1 but got {kept}. Give for example 0.5, or a number.')
    return max(1, round(kept * total))


def write_pruned(
    subject: Subject,
    calibration: Calibration,
    plan: PruningPlan,
    out: Path,
    parts: Collection[str] = (),
    ridge: float = RIDGE,
) -> dict[str, tuple[float, float]]:
    """Write plan.json and pruned.pth, the whole model with its backbone pruned; return what fits of parts gained."""
    plan.write(out / 'plan.json')
    inner = plan.replaced(prefix=subject.inner)
    state: Mapping[str, Tensor] = prune_state(inner, subject.model)
    errors: dict[str, tuple[float, float]] = {}
    if parts:
        made = fit_parts(inner, state, collect(calibration, inner), parts=parts, ridge=ridge)
        state, errors = made.state, made.errors
    record = {'plan': json.loads(plan.to_json()), 'compensated': list(parts)}
    write_checkpoint({'meta': {'kdplugin': {'pruning': record}}, 'state_dict': dict(state)}, out / 'pruned.pth')
    return errors


def measure_costs(
    subject: Subject, plan: PruningPlan, size: int | None = None, latency_size: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return ``compare_costs`` of the backbone before and after."""
    size = size or int(subject.settings.get('img_size', 640))
    models = {'before': subject.backbone, 'after': pruned_backbone(subject, plan)}
    return compare_costs(models, size=size, latency_size=latency_size or size)


def write_records(
    subject: Subject, choice: Choice, plan: PruningPlan, out: Path, content: dict[str, Any], parts: Collection[str]
) -> None:
    """Write pruned_config.py, report.json and, where heads were scored, heads.png."""
    scores = {unit: [[float(f'{value:.6g}') for value in row] for row in rows] for unit, rows in choice.scores.items()}
    write_text(out / 'report.json', json.dumps({**content, 'about': plan.about, 'scores': scores}, indent=1) + '\n')
    write_text(out / 'pruned_config.py', fragment(subject, plan, out, content['checkpoint'], list(parts)))
    if 'heads' in choice.scores:
        save_importance(choice.scores['heads'], plan, plan.about['heads']['scorer'], out / 'heads.png')


def report_text(
    subject: Subject,
    plan: PruningPlan,
    costs: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, tuple[float, float]],
    out: Path,
) -> str:
    """Return what a person should know: the plan, costs before and after, what fits gained, what was left out."""
    parts: list[Any] = [str(plan)]
    if costs:
        table = new_table('backbone', 'parameters', 'GFLOPs', 'CPU seconds', 'times quicker')
        for name, row in costs.items():
            seconds = sorted(row['cpu_seconds'])[len(row['cpu_seconds']) // 2]
            flops, quicker = number(row['flops'] / 1e9, 2), number(row['speedup'], 2)
            table.add_row(name, count(row['parameters']), flops, number(seconds, 3), quicker)
        parts.append(table)
    if errors:
        table = new_table('fitted', 'error before', 'after', caption="share of the output's variance that is missed")
        for name, (before, after) in errors.items():
            table.add_row(name, number(before, 4), number(after, 4))
        parts.append(table)
    if subject.left:
        parts.append(f'{len(subject.left)} tensors of the checkpoint are not built by the config and left out.')
    written = ', '.join(sorted(file.name for file in out.iterdir() if file.is_file()))
    return f'{render(*parts)}\nwrote {out}: {written}'
