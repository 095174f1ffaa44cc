"""A mapping as JSON and as a table, in the form of lit-wsl's reports."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.reading.tensor_source import TensorSource


def mapping_report(plan: ProjectionPlan, source: TensorSource) -> dict[str, Any]:
    """Return names, counts, coverage by tensors, mappings (several sources joined by '+') and what is left."""
    matched = [entry for entry in plan.entries if entry.loads]
    return {
        'source_model': plan.source,
        'target_model': plan.target,
        'source_params_count': len(source),
        'target_params_count': len(plan),
        'matched_count': len(matched),
        'coverage': len(matched) / max(len(plan), 1),
        'mappings': [
            {'source': ' + '.join(e.sources), 'target': e.target, 'score': e.score, 'shape': list(e.shape)}
            for e in matched
        ],
        'unmatched_source': list(plan.unused),
        'unmatched_target': [entry.target for entry in plan.entries if not entry.loads],
    }


def print_mapping(plan: ProjectionPlan, source: TensorSource, top_n: int, show_unmatched: bool) -> None:
    """Print counts, the ``top_n`` best pairs, notes, and what is left with the reason."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    report = mapping_report(plan, source)
    console.print(
        f'{plan.source} ({len(source)} tensors) -> {plan.target} ({len(plan)} tensors): '
        f'{report["matched_count"]} matched, {report["coverage"]:.1%}'
    )
    table = Table(Column('source', overflow='fold'), Column('target', overflow='fold'), 'kind', 'score')
    matched = [entry for entry in plan.entries if entry.loads]
    for entry in sorted(matched, key=lambda entry: -entry.score)[:top_n]:
        table.add_row(' + '.join(entry.sources), entry.target, entry.kind, f'{entry.score:.3f}')
    console.print(table, soft_wrap=False)
    for note in plan.notes:
        console.print(f'note: {note}')
    if show_unmatched:
        for entry in plan.entries:
            if not entry.loads:
                console.print(f'{entry.kind}: {entry.target}: {entry.reason}')
        for name, reason in plan.unused.items():
            console.print(f'unused: {name}: {reason}')
