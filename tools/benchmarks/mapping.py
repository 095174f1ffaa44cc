#!/usr/bin/env python
"""What the weight mapper gets right between real models, without a hand-written rule, beside lit_wsl's.

tools/benchmarks/mapping.py --lit-wsl CHECKOUT... --scale --json docs/results/mapping.json
The first checkout gives lit_wsl_right. The published table: revisions aa2335b (153 of 334 tensors of FCN without an
input), 38f8a17 (its best) and ab6a8f3 (the newest).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from mapping_pairs import all_pairs
from mapping_pairs.base import Case, Pair
from mapping_pairs.judge import WAYS, judge, plan_of
from mapping_pairs.rival import load, mapping_of
from mapping_pairs.scale import measure_scale

from kdplugin.reports.cli import run_tool
from kdplugin.reports.tables import new_table, number, render
from kdplugin.weights.plan import ProjectionPlan

TABLE = 150
"""Columns of the table: names of pairs are long."""
Find = Callable[[], ProjectionPlan | Mapping[str, str]]


def chosen(patterns: list[str]) -> list[Pair]:
    """Return the pairs whose names match one of the patterns, all without a pattern."""
    pairs = list(all_pairs().values())
    return [pair for pair in pairs if any(re.search(p, pair.name, re.IGNORECASE) for p in patterns or [''])]


def absent(pair: Pair) -> list[str]:
    return [package for package in pair.needs if importlib.util.find_spec(package) is None]


def attempt(case: Case, find: Find, bare: bool = False) -> dict[str, Any]:
    """Judge one answer; a mapper that fails is a result, too."""
    try:
        return judge(case, find, bare)
    except Exception as error:
        traceback.print_exc()
        message = f'{type(error).__name__}: {error}'
        return {'right': 0, 'tensors': len(case.truth), 'error': message, 'max_output_difference': None}


def our_rows(case: Case, ways: list[str], tiny: bool) -> dict[str, Any]:
    """Return what kdplugin's mapper gets right, by way of asking."""
    rows = {}
    for way in ways:
        if way == 'untrained' and case.pair.by_values:
            continue
        untrained = case.pair.build(tiny)[0] if way == 'untrained' else None
        rows[way] = attempt(case, partial(plan_of, case, way, untrained), bare=way == 'state dict')
    return rows


def rival_rows(case: Case, checkouts: list[Path]) -> dict[str, Any]:
    """Return what each checkout of lit_wsl gets right, asked with and without the input; the better counts."""
    rows = {}
    for checkout in checkouts:
        ask = partial(mapping_of, load(checkout), case.source, case.target)
        asked = {'inputs': attempt(case, partial(ask, case.inputs)), 'modules': attempt(case, ask)}
        best = max(asked.values(), key=lambda verdict: verdict['right'])
        kept = ('right', 'seconds', 'max_output_difference', 'error')
        row: dict[str, Any] = {key: best[key] for key in kept if key in best}
        rows[checkout.name] = row | {'by_way': {way: verdict['right'] for way, verdict in asked.items()}}
    return rows


def run_pair(pair: Pair, ways: list[str], checkouts: list[Path], tiny: bool) -> dict[str, Any]:
    """Build a pair, check that its truth is one, and judge the mappers by it."""
    case = Case(pair, tiny)
    verdicts = our_rows(case, ways, tiny)
    best = next(iter(verdicts.values()))
    rivals = rival_rows(case, checkouts)
    return {
        'name': pair.name,
        'tensors': len(case.truth),
        'right': best['right'],
        'lit_wsl_right': next(iter(rivals.values()))['right'] if rivals else None,
        'max_output_difference': best.get('max_output_difference'),
        'difference_given_refused': best.get('difference_given_refused'),
        'seconds': best.get('seconds'),
        'truth_output_difference': case.difference(case.truth),
        'ways': verdicts,
        'lit_wsl': rivals,
    }


def print_details(row: dict[str, Any], limit: int) -> None:
    """Print the names of what is not right, once where several ways of asking share them."""
    ways: dict[str, list[str]] = {}
    for way, verdict in row['ways'].items():
        lines = [f'      {verdict["error"]}'] if 'error' in verdict else []
        for place in ('wrong', 'refused', 'missing', 'without_source', 'unknown_names', 'changed'):
            names = verdict.get(place, [])
            if names:
                rest = f' and {len(names) - limit} more' if len(names) > limit else ''
                lines.append(f'      {len(names)} {place}: {", ".join(names[:limit])}{rest}')
        if lines:
            ways.setdefault('\n'.join(lines), []).append(way)
    for text, shared in ways.items():
        print(f'    {", ".join(shared)}:\n{text}')


def table(rows: list[dict[str, Any]], ways: list[str]) -> Any:
    """Return the table of all pairs: right tensors by way of asking, lit_wsl's, the difference, the seconds."""
    checkouts = list(rows[0]['lit_wsl']) if rows else []
    columns = ['all', *(way.replace('state ', '') for way in ways), *checkouts, 'diff.', 'settled', 's']
    result = new_table('pair', *columns, title='Right tensors by how the mapper is asked, and by lit_wsl revision')
    for row in rows:
        cells = [str(row['ways'][way]['right']) if way in row['ways'] else '-' for way in ways]
        cells += [str(row['lit_wsl'][name]['right']) for name in checkouts]
        differences = (row['max_output_difference'], row['difference_given_refused'])
        cells += ['-' if value is None else f'{value:.1e}' for value in differences]
        result.add_row(row['name'], str(row['tensors']), *cells, number(row['seconds'], 2))
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', nargs='+', default=[], help='patterns of pair names; all without')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--lit-wsl', nargs='+', type=Path, default=[], help='checkouts of github.com/twsl/lit-wsl')
    parser.add_argument('--scale', action='store_true', help='also time two stacks of 5,000 tensors')
    parser.add_argument('--tiny', action='store_true', help='the same families at a small size')
    parser.add_argument('--names', type=int, default=5, metavar='N', help='print this many names of what is not right')
    parser.add_argument('--list', action='store_true', help='print the names of the pairs and stop')
    parser.add_argument('--json', type=Path, help='put the results into this file')
    return parser.parse_args(argv)


def merged(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Put results into those of an earlier run: other pairs stay, and lit_wsl's where it was not asked again."""
    old = json.loads(path.read_text()) if path.is_file() else {'pairs': []}
    earlier = {row['name']: row for row in old['pairs']}
    for row in result['pairs']:
        before = earlier.get(row['name'], {})
        if not row['lit_wsl'] and before.get('tensors') == row['tensors']:
            row |= {key: before[key] for key in ('lit_wsl_right', 'lit_wsl')}
        earlier[row['name']] = row
    order = [name for name in all_pairs() if name in earlier]
    return {**old, **result, 'pairs': [earlier[name] for name in order]}


def measure(pairs: list[Pair], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Judge the pairs one by one; print what each gets and put it into the file at once."""
    rows = []
    for pair in pairs:
        row = run_pair(pair, arguments.ways, arguments.lit_wsl, arguments.tiny)
        rights = ', '.join(f'{way} {verdict["right"]}' for way, verdict in row['ways'].items())
        print(f'{pair.name}: of {row["tensors"]} right: {rights}', flush=True)
        print_details(row, arguments.names)
        keep(arguments.json, {'torch': torch.__version__, 'pairs': [row]})
        rows.append(row)
    return rows


def keep(path: Path | None, result: dict[str, Any]) -> None:
    """Write results into the file, if there is one to write."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(merged(path, result), indent=1) + '\n')


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.list:
        print('\n'.join(all_pairs()))
        return 0

    def body() -> int:
        wanted = chosen(arguments.pairs)
        for pair in wanted:
            if absent(pair):
                print(f'{pair.name}: left out, needs {", ".join(absent(pair))}', flush=True)
        rows = measure([pair for pair in wanted if not absent(pair)], arguments)
        print(render(table(rows, arguments.ways), width=TABLE))
        if arguments.scale:
            keep(arguments.json, {'pairs': [], 'scale': measure_scale(arguments.lit_wsl)})
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
