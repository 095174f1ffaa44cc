#!/usr/bin/env python
"""Fill a model from a checkpoint of another width or depth: tools/project_weights.py SOURCE TARGET OUT"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from kdplugin.reports.cli import run_tool
from kdplugin.weight_targets import add_arguments, plan_options, source_of, target_of
from kdplugin.weights.project import AUTO, hash_source, project
from kdplugin.weights.reading.io import write_checkpoint
from kdplugin.weights.reports.report_text import report_text


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Write what SOURCE gives TARGET. OUT holds the loaded tensors alone, under the names of TARGET: '
        'what SOURCE cannot fill is not in it and keeps the initialisation of the model that loads it.',
        epilog='Exit code 0: OUT is written; 1: it is not, and the reason is printed.',
    )
    add_arguments(parser)
    parser.add_argument('out', metavar='OUT', help='file to write, .pth or .safetensors')
    parser.add_argument('--plan', default=AUTO, metavar='JSON', help='an edited plan of tools/map_weights.py --json')
    parser.add_argument(
        '--min-coverage',
        type=float,
        default=0.0,
        metavar='SHARE',
        help='write nothing if less than this share (0 to 1) of the parameters of TARGET is loaded',
    )
    parser.add_argument('--report', metavar='FOLDER', help='write plan.json, report.json, report.txt and layers.png')
    parser.add_argument('--every-tensor', action='store_true', help='list all tensors, also those of repeated layers')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        source = source_of(arguments)
        projection = project(
            source,
            target_of(arguments),
            plan=arguments.plan,
            min_coverage=arguments.min_coverage,
            **plan_options(arguments),
        )
        prefix = f'{arguments.part}.' if arguments.part else ''
        record = {
            'source': arguments.source,
            'sha256': hash_source(arguments.source, source),
            'target': arguments.part,
            'coverage': projection.report.coverage,
        }
        tensors = {prefix + name: value for name, value in projection.tensors.items()}
        header = {'kdplugin': json.dumps({'projection': record})}
        write_checkpoint({'meta': {'kdplugin': {'projection': record}}, 'state_dict': tensors}, arguments.out, header)
        print(report_text(projection.report, every_tensor=arguments.every_tensor))
        if arguments.report:
            projection.save_records(arguments.report)
        print(f'{arguments.out}: {len(tensors)} tensors')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
