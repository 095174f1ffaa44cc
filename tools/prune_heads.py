#!/usr/bin/env python
"""Prune heads and neurons of a trained EVA-ViT: tools/prune_heads.py CONFIG CHECKPOINT OUT --heads 8 --neurons 0.5"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdplugin.pruning.budgets import SCOPES
from kdplugin.pruning.compensation import PARTS, RIDGE
from kdplugin.pruning.planning import SCORERS
from kdplugin.reports.cli import run_tool


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Score heads and neurons of a trained model, keep the best ones and write the rest away.',
        epilog='OUT gets plan.json, pruned.pth, pruned_config.py, report.json and heads.png. '
        'Exit code 0: they are written; 1: they are not, and the reason is printed.',
    )
    parser.add_argument('config', metavar='CONFIG', help="config of the model; of a KD config, its teacher's")
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='its trained weights')
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to write')
    parser.add_argument('--heads', type=amount, metavar='N', help='heads that stay in each block: 8, or a share 0.5')
    parser.add_argument('--neurons', type=amount, metavar='N', help='neurons of the FFN that stay: 1365, or 0.5')
    parser.add_argument(
        '--scope', choices=SCOPES, default='block', help='the same number in every block, or on average'
    )
    parser.add_argument('--min-heads', type=int, default=1, metavar='N', help='of every block, with --scope global')
    parser.add_argument('--min-neurons', type=int, default=1, metavar='N', help='likewise')
    parser.add_argument('--keep', nargs='+', default=[], type=keep, metavar='B:H,H', help='heads that stay: 3:0,5 7:2')
    parser.add_argument('--scorer', choices=list(SCORERS), default='taylor', help='of heads (default: taylor)')
    parser.add_argument('--neuron-scorer', choices=[n for n in SCORERS if n != 'entropy'], default='taylor')
    parser.add_argument('--batches', type=int, default=16, help='of the training data to calibrate on (default: 16)')
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--compensate', nargs='+', default=[], choices=PARTS, help='fit these to the whole model')
    parser.add_argument('--ridge', type=float, default=RIDGE, help=f'of the fit (default: {RIDGE})')
    parser.add_argument('--seed', type=int, default=0, help='of the order of the data, and of --scorer random')
    parser.add_argument('--size', type=int, metavar='PIXELS', help='of the image whose cost is told; 0 for no costs')
    parser.add_argument('--latency-size', type=int, metavar='PIXELS', help='of the timed image (default: --size)')
    parser.add_argument('--trust-checkpoint', action='store_true', help='unpickle CHECKPOINT without restrictions')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of CONFIG')
    return parser.parse_args(argv)


def amount(text: str) -> int | float:
    """Read a number of units, or a share of them.

    Example:
        >>> amount('8'), amount('0.5')
        (8, 0.5)
    """
    return float(text) if '.' in text else int(text)


def keep(text: str) -> tuple[int, list[int]]:
    """Read the heads of a block that stay.

    Example:
        >>> keep('3:0,5')
        (3, [0, 5])
    """
    block, heads = text.split(':')
    return int(block), [int(head) for head in heads.split(',')]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        from kdplugin.pruning_run.prune import prune_and_report

        print(prune_and_report(**vars(arguments)))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
