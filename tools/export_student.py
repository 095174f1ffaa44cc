"""Write the plain student of a training checkpoint: tools/export_student.py CKPT OUT [--config CONFIG]."""

from __future__ import annotations

import argparse
import sys

from kdplugin.errors import ConfigError
from kdplugin.pruning.exchange import LAYOUTS, export_backbone
from kdplugin.pruning.plan import PruningPlan
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
        '--layout',
        choices=LAYOUTS,
        help="write the backbone alone: orion, img_backbone.* with pruned heads as zeros, for ORION's own model; timm, "
        'the names of its Eva (needs --config, because timm knows no windows)',
    )
    parser.add_argument('--plan', metavar='JSON', help='with --layout: the plan by which the student was pruned')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle CKPT without restrictions, which can run any program; only if you trust its author',
    )
    return parser.parse_args(argv)


def export_layout(arguments: argparse.Namespace) -> None:
    """Write the backbone in another layout."""
    if arguments.layout == 'timm':
        if not arguments.config:
            raise ConfigError('Expected --config with --layout timm, to see the windows of the backbone. Give it.')
        from kdplugin import launch
        from kdplugin.reports.export_report import require_no_windows

        require_no_windows(launch.read_config(arguments.config))
    plan = PruningPlan.read(arguments.plan) if arguments.plan else None
    print(
        export_backbone(
            arguments.checkpoint, arguments.out, arguments.layout, plan, trust_checkpoint=arguments.trust_checkpoint
        )
    )


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        if arguments.layout:
            export_layout(arguments)
            return 0
        if arguments.plan:
            raise ConfigError('Expected --layout beside --plan but got none. Write --layout orion.')
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
