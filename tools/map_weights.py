#!/usr/bin/env python
"""Show how a checkpoint would fill a model, and change nothing: tools/map_weights.py SOURCE TARGET [--json PLAN]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kdplugin.reports.cli import run_tool
from kdplugin.weight_targets import add_arguments, plan_options, source_of, target_of
from kdplugin.weights.project import plan_for, report_for
from kdplugin.weights.reports.picture import save_picture
from kdplugin.weights.reports.report_text import report_text


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Plan how SOURCE fills TARGET and print the plan: what is copied, renamed, converted, projected, '
        'left random or refused, and why. Reads no more than it needs and writes no weights.',
        epilog='Exit code 0: the plan loads something; 1: it loads nothing, or there is no plan.',
    )
    add_arguments(parser)
    parser.add_argument('--json', metavar='PLAN', help='write the plan: edit it, then tools/project_weights.py --plan')
    parser.add_argument('--picture', metavar='PNG', help='draw which layer comes from where')
    parser.add_argument('--every-tensor', action='store_true', help='list all tensors, also those of repeated layers')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        source, target = source_of(arguments), target_of(arguments)
        plan = plan_for(source, target, **plan_options(arguments))
        report = report_for(plan, source)
        print(report_text(report, every_tensor=arguments.every_tensor))
        if arguments.json:
            plan.save(arguments.json)
        if arguments.picture:
            save_picture(report, arguments.picture)
        report.require(0.0)
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
