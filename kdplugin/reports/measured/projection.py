"""The measured projection of a Wan-1.3B layout: seconds and memory, beside WanDistiller's functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdplugin.reports.tables import count, markdown, number
from kdplugin.weights.reports.report import percent

COLUMNS = (
    'method',
    'seconds, reading included',
    'peak RSS, MB',
    'beyond the student, MB',
    'mean relative error',
    "WanDistiller's seconds, without reading",
    'ratio of CPU seconds',
)


def projection_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/projection.json in Markdown, with what is random and why below it.

    Args:
        content: 'ours', a list of dicts by method; 'wan_distiller', its 'runs' likewise, absent if nobody ran it;
            'teacher' and 'layout_14b' with their coverage; see tools/benchmarks/projection.py.
    """
    rivals = {run['method']: run for run in content.get('wan_distiller', {}).get('runs', ())}
    rows = []
    for run in content['ours']:
        rival = rivals.get(run['method'], {})
        rows.append(
            [
                run['method'],
                number(run['seconds'], 2),
                number(run['peak_rss_bytes'] / 1e6, 0),
                number((run['peak_rss_bytes'] - run['student_bytes']) / 1e6, 0),
                number(run['mean_relative_error_of_matrices'], 3),
                number(rival.get('seconds_of_16_blocks'), 2),
                number(rival.get('times_our_cpu_seconds'), 2),
            ]
        )
    machine = content['machine']
    lines = [
        markdown(COLUMNS, rows),
        f'{content["teacher"]["layout"]}, {content["teacher"]["bytes"] / 1e9:.1f} GB in {content["teacher"]["shards"]} '
        f'shards, to WanLiteStudent 1024/16; {machine["threads"]} of {machine["cpus"]} threads, torch '
        f'{machine["torch"]}. Random values have no low rank, so the error is the worst there is. Ratio: '
        "WanDistiller's seconds by ours.",
        _coverage('1.3B', content['teacher']),
        _coverage('14B (planned on meta tensors)', content['layout_14b'][0]),
    ]
    return '\n\n'.join(lines)


def _coverage(name: str, result: Mapping[str, Any]) -> str:
    total = result['totals']['all']['parameters']
    random = '; '.join(
        f'`{module}` {count(row["parameters"])}: {row["why"].rstrip(".")}' for module, row in result['random'].items()
    )
    return (
        f'Coverage from {name}: {percent(result["coverage"]["parameters"])} of {total:,} parameters, '
        f'{percent(result["coverage"]["tensors"])} of {result["totals"]["all"]["tensors"]} tensors, from teacher '
        f'layers {", ".join(map(str, result["layers"]))}. Random: {random or "nothing"}.'
    )
