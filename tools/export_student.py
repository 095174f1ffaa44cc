"""Write the plain student of a training checkpoint: tools/export_student.py CKPT OUT [--config CONFIG]."""

from __future__ import annotations

import argparse
import sys

from kdplugin.reports.cli import run_tool
from kdplugin.reports.tables import show
from kdplugin.weights.export import export_student


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write the student of a training checkpoint, and nothing else.')
    parser.add_argument('checkpoint', metavar='CKPT', help='file saved by a training')
    parser.add_argument('out', metavar='OUT', help='file to write, .pth or .safetensors')
    parser.add_argument('--config', help='plain or KD config: load OUT into its student strictly, as proof')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle CKPT without restrictions, which can run any program; only if you trust its author',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        report = export_student(arguments.checkpoint, arguments.out, trust_checkpoint=arguments.trust_checkpoint)
        from kdplugin import launch
        from kdplugin.reports.export_report import export_parts, strict_load

        show(*export_parts(report))
        if arguments.config:
            print(strict_load(launch.read_config(arguments.config), arguments.out))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
