"""Compare a KD run with its baseline: tools/compare_runs.py BASELINE KD [--teacher DIR] --out DIR."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdplugin.reports.cli import run_tool
from kdplugin.reports.compare import compare
from kdplugin.reports.comparison_report import comparison_parts, write_comparison
from kdplugin.reports.tables import show


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Table, report.json and pictures of a KD run against its baseline.')
    parser.add_argument('baseline', type=Path, help='work dir of the run without distillation')
    parser.add_argument('kd', type=Path, help='work dir of the run with it')
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
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_arguments(argv)

    def body() -> int:
        shape = tuple(args.shape) if args.shape else None
        comparison = compare(args.baseline, args.kd, args.teacher, args.select, shape)
        pictures = write_comparison(comparison, args.out)
        show(*comparison_parts(comparison))
        print('\n'.join(f'wrote {path}' for path in pictures))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    raise SystemExit(main())
