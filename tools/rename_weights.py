#!/usr/bin/env python
"""Give the tensors of a checkpoint other names: tools/rename_weights.py FILE OUT --remove-prefix module."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kdplugin.errors import CheckpointError
from kdplugin.reports.cli import run_tool
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.renamer import WeightRenamer


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Rename tensors; values and the other entries of a .pth stay. Prefixes go first, then the mapping.',
        epilog='Exit code 0: OUT is written; 1: it is not, and the reason is printed.',
    )
    parser.add_argument('file', metavar='FILE', help='checkpoint: file, folder or hub id')
    parser.add_argument('out', metavar='OUT', help='file to write, .pth or .safetensors')
    parser.add_argument('--remove-prefix', metavar='OLD', help='take OLD away wherever a name begins with it')
    parser.add_argument('--replace-prefix', nargs=2, metavar=('OLD', 'NEW'), help='put NEW in its place')
    parser.add_argument('--add-prefix', metavar='NEW', help='put NEW before all names')
    parser.add_argument('--mapping', metavar='JSON', help='{"old name": "new name", ...}, or a plan that only renames')
    parser.add_argument('--drop-unmapped', action='store_true', help='leave out what the mapping does not name')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle FILE without restrictions, which can run any program; only if you trust its author',
    )
    arguments = parser.parse_args(argv)
    ways = (arguments.remove_prefix, arguments.replace_prefix, arguments.add_prefix, arguments.mapping)
    if not any(ways):
        parser.error('give --remove-prefix, --replace-prefix, --add-prefix or --mapping')
    if arguments.drop_unmapped and not arguments.mapping:
        parser.error('--drop-unmapped needs --mapping')
    return arguments


def read_mapping(path: str) -> dict[str, str] | ProjectionPlan:
    """Read a mapping or a plan from a JSON file.

    Raises:
        CheckpointError: the file is missing or neither of them.
    """
    if not Path(path).is_file():
        raise CheckpointError(f'Expected a mapping file but {path} does not exist. Check the path.')
    text = Path(path).read_text()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f'Expected JSON in {path} but got {error}. Correct the file.') from None
    if isinstance(content, dict) and 'entries' in content:
        return ProjectionPlan.from_json(text)
    if not isinstance(content, dict) or not all(isinstance(new, str) for new in content.values()):
        raise CheckpointError(
            f'Expected {{"old name": "new name", ...}} in {path} but got {text[:60]!r}. Correct the file.'
        )
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    arguments = parse_arguments(argv)

    def body() -> int:
        renamer = WeightRenamer(arguments.file, trust_checkpoint=arguments.trust_checkpoint or None)
        before = renamer.list_keys()
        if arguments.remove_prefix:
            renamer.remove_prefix(arguments.remove_prefix)
        if arguments.replace_prefix:
            renamer.rename_with_prefix(*arguments.replace_prefix)
        if arguments.add_prefix:
            renamer.add_prefix(arguments.add_prefix)
        if arguments.mapping:
            renamer.rename_keys(read_mapping(arguments.mapping), preserve_unmapped=not arguments.drop_unmapped)
        renamer.save(arguments.out)
        after = renamer.list_keys()
        kept = len(set(before) & set(after))
        print(f'{arguments.out}: {len(after)} of {len(before)} tensors, {len(after) - kept} under new names')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
