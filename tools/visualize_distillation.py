#!/usr/bin/env python
"""What student and teacher see: tools/visualize_distillation.py CONFIG [IMAGES...] --checkpoint FILE --out DIR"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdplugin.reports.cli import run_tool


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Draw, for each image and pair, what teacher and student have at their taps, and the difference.',
        epilog='OUT gets a PNG file for each image and pair, and numbers.json. docs/tools.md says what they show. '
        'Exit code 0: they are written; 1: they are not, and the reason is printed.',
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the distillation')
    parser.add_argument('images', metavar='IMAGES', nargs='*', help='image files (default: the first of validation)')
    parser.add_argument('--checkpoint', metavar='FILE', help='that the training saved (default: as training begins)')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--count', type=int, default=2, help='images of the validation set (default: 2)')
    parser.add_argument('--pairs', nargs='+', default=[], metavar='NAME', help='draw these alone')
    parser.add_argument('--device', default='cpu', help='for example cuda (default: cpu)')
    parser.add_argument('--trust-checkpoint', action='store_true', help='unpickle FILE without restrictions')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of CONFIG')
    return parser.parse_intermixed_args(argv)  # images may follow options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = vars(parse_arguments(argv))

    def body() -> int:
        from kdplugin.launch import parse_options
        from kdplugin.visualization.visualize import visualize

        options = parse_options(arguments.pop('cfg_options'))
        print(visualize(arguments.pop('config'), arguments.pop('images'), options=options, **arguments))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
