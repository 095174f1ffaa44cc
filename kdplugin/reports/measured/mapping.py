"""The tables of docs/results/mapping.json: what the weight mapper gets right between real models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS = ['pair', 'tensors', 'right', 'of them refused', 'lit_wsl right', 'largest difference', 'seconds']
STACKS = ['stack', 'tensors', 'right', 'seconds', 'seconds of computing']


def mapping_table(content: Mapping[str, Any]) -> str:
    """Return totals, a row for each pair, and the times on long stacks where they were measured.

    Args:
        content: ``pairs``, dicts with 'name', 'tensors', 'right', 'lit_wsl_right', 'seconds' and 'ways', from each way
            of asking, the one that counts first, to 'right', 'wrong', 'permitted_refusals' and
            'difference_given_refused'; ``scale``, from a stack to 'tensors', 'right', 'seconds' and 'cpu_seconds'.
    """
    parts = [_summary(content['pairs']), markdown(COLUMNS, [_row(pair) for pair in content['pairs']])]
    if content.get('scale'):
        stacks = [
            [name, str(row['tensors']), str(row['right']), number(row['seconds'], 2), number(row['cpu_seconds'], 2)]
            for name, row in content['scale'].items()
        ]
        parts.append(markdown(STACKS, stacks))
    return '\n\n'.join(parts)


def _row(pair: Mapping[str, Any]) -> list[str]:
    verdict = next(iter(pair['ways'].values()))
    rights = {way: found['right'] for way, found in pair['ways'].items()}
    same = len(set(rights.values())) == 1
    difference = verdict.get('difference_given_refused')
    return [
        pair['name'],
        str(pair['tensors']),
        str(pair['right']) if same else ', '.join(f'{count} ({way})' for way, count in rights.items()),
        str(len(verdict.get('permitted_refusals', []))),
        '-' if pair['lit_wsl_right'] is None else str(pair['lit_wsl_right']),
        '-' if difference is None else f'{difference:.1e}',
        number(pair['seconds'], 1),
    ]


def _summary(pairs: Sequence[Mapping[str, Any]]) -> str:
    compared = [pair for pair in pairs if pair['lit_wsl_right'] is not None]
    wrong = sum(len(verdict.get('wrong', [])) for pair in pairs for verdict in pair['ways'].values())
    return (
        f'{len(pairs)} pairs: {_sum(pairs, "right"):,} of {_sum(pairs, "tensors"):,} tensors right; {wrong} wrong ones '
        f'in all ways of asking together. lit_wsl: {_sum(compared, "lit_wsl_right"):,} of '
        f'{_sum(compared, "tensors"):,} ({len(compared)} pairs).'
    )


def _sum(pairs: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(pair[key] for pair in pairs)
