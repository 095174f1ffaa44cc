#!/usr/bin/env python
"""Bring a config or checkpoint of MMRazor 1.x distillation here: tools/migrate_mmrazor.py IN OUT"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdplugin import launch
from kdplugin.migration.mmrazor_checkpoint import migrate_checkpoint, plain_student
from kdplugin.migration.mmrazor_config import migrate_config
from kdplugin.migration.notes import Note, leftovers, note_parts
from kdplugin.reports.cli import run_tool
from kdplugin.reports.export_report import strict_load
from kdplugin.reports.tables import render, show


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Write a config of kdplugin, or a checkpoint of the plain student, and say what changed.',
        epilog='Exit code 0: written; 1: an error, or something without a counterpart, and nothing written.',
    )
    parser.add_argument('source', metavar='IN', help='MMRazor config (.py) or checkpoint (.pth)')
    parser.add_argument('target', metavar='OUT', help='file to write: .py, or .pth or .safetensors')
    parser.add_argument('--config', help='of a checkpoint: MMRazor, KD or plain config; load OUT into it strictly')
    parser.add_argument('--allow-leftovers', action='store_true', help='write OUT without what has no counterpart')
    parser.add_argument('--report', metavar='FILE', help='write what is printed to a file too')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle IN without restrictions, which can run any program; only if you trust its author',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        if Path(arguments.source).suffix != '.py':
            notes = migrate_checkpoint(arguments.source, arguments.target, arguments.trust_checkpoint)
            tell(notes, arguments.report)
            if arguments.config:
                print(strict_load(plain_student(launch.read_config(arguments.config)), arguments.target))
            return 0
        migration = migrate_config(launch.read_config(arguments.source))
        tell(migration.notes, arguments.report)
        left = leftovers(migration.notes)
        if left and not arguments.allow_leftovers:
            print(f'{len(left)} without a counterpart: nothing written. --allow-leftovers writes the rest.')
            return 1
        Path(arguments.target).write_text(migration.text())
        launch.read_config(arguments.target)
        print(f'{arguments.target}: check it with tools/verify_config.py')
        return 0

    return run_tool(body)


def tell(notes: list[Note], report: str | None) -> None:
    """Print notes, and write them to a file where one is given."""
    show(*note_parts(notes))
    if report:
        Path(report).write_text(render(*note_parts(notes)) + '\n')


if __name__ == '__main__':
    sys.exit(main())
