#!/usr/bin/env python
"""Compare KD runs with their baselines: tools/compare_runs.py BASELINE KD [--teacher DIR] --out DIR"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdplugin.reports.cli import run_tool
from kdplugin.reports.compare import compare
from kdplugin.reports.compare_seeds import compare_seeds
from kdplugin.reports.comparison_report import comparison_parts, write_comparison
from kdplugin.reports.seed_report import seed_parts, write_seed_comparison
from kdplugin.reports.tables import show


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Table, report.json and pictures of a KD run against its baseline.',
        epilog='Several seeds: --baseline DIR DIR DIR --kd DIR DIR DIR instead of BASELINE KD; runs are paired by the '
        'seed in their configs, and report.html holds everything in one file.',
    )
    parser.add_argument('pair', type=Path, nargs='*', metavar='BASELINE KD', help='work dirs without and with it')
    parser.add_argument('--baseline', type=Path, nargs='+', metavar='DIR', help='runs without distillation')
    parser.add_argument('--kd', type=Path, nargs='+', metavar='DIR', help='runs with it, of the same seeds')
    parser.add_argument('--teacher', type=Path, help="work dir of the teacher's own training")
    parser.add_argument('--out', type=Path, required=True, help='folder for the report')
    parser.add_argument(
        '--select',
        choices=('best', 'last'),
        default='best',
        help='which validation stands for each run (default: best)',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="input for FLOPs and latency (default: the config's)",
    )
    args = parser.parse_args(argv)
    named = [args.baseline, args.kd]
    if (len(args.pair) != 2 or any(named)) and (args.pair or not all(named)):
        parser.error('give BASELINE KD, or --baseline DIR ... and --kd DIR ...')
    if args.pair:
        args.baseline, args.kd = ([folder] for folder in args.pair)
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_arguments(argv)

    def body() -> int:
        shape = tuple(args.shape) if args.shape else None
        if len(args.baseline) == len(args.kd) == 1:
            comparison = compare(args.baseline[0], args.kd[0], args.teacher, args.select, shape)
            written, parts = write_comparison(comparison, args.out), comparison_parts(comparison)
        else:
            seeds = compare_seeds(args.baseline, args.kd, args.teacher, args.select, shape)
            written, parts = write_seed_comparison(seeds, args.out), seed_parts(seeds)
        show(*parts)
        print('\n'.join(f'wrote {path}' for path in written))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    raise SystemExit(main())
