#!/usr/bin/env python
"""Write the measured tables of the documentation and the list of recipes from docs/results: tools/write_docs.py"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdplugin import model_index
from kdplugin.reports.cli import run_tool
from kdplugin.reports.doc_tables import TABLES, written


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        description='Bring the measured tables of the documentation and the list of recipes up to date.',
        epilog='Exit code 0: they are; 1: a document has no place for its table.',
    )
    parser.parse_args(argv)

    def body() -> int:
        root = Path(__file__).parents[1]
        for name in TABLES:
            path, text = written(root, name)
            path.write_text(text)
            print(f'{name}: {path}')
        for path, text in model_index.written(root).items():
            path.write_text(text)
            print(f'list of recipes: {path}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
