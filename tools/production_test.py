#!/usr/bin/env python
"""Prove the text-to-image pipeline before a large download: tools/production_test.py [--teacher PATH] [--json FILE]"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kdplugin.production.production_test import production_test
from kdplugin.production.report import outcome_parts
from kdplugin.production.setup import Settings
from kdplugin.reports.cli import run_tool
from kdplugin.reports.tables import show
from kdplugin.weights.reading.io import write_text


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Data, encoding, projection, training, saving, reloading and sampling with a tiny teacher that is '
        'made on this machine, or with a real one; then broken pipelines, which must fail.',
        epilog='Exit code 0: every check holds and every fault was caught; 1: not.',
    )
    parser.add_argument('--teacher', metavar='PATH', help='folder or id of a real Wan pipeline (57 GB for A14B)')
    parser.add_argument(
        '--num-epochs', type=int, help='rounds through the prompts (default: 30; real teacher: as the config says)'
    )
    parser.add_argument('--batch-size', type=int, help='prompts in a step (default: as the config says)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'production_test')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the outcome here too')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def body() -> int:
        outcome = production_test(
            Settings(arguments.work_dir, arguments.teacher, arguments.num_epochs, arguments.batch_size, arguments.seed)
        )
        show(*outcome_parts(outcome))
        if arguments.json:
            write_text(arguments.json, json.dumps(outcome.to_json(), indent=1) + '\n')
        return int(not outcome.passed)

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
