#!/usr/bin/env python
"""The quickstart from nothing to a comparison table: tools/demo.py (``make demo`` does the set-up first)."""

from __future__ import annotations

import argparse
import sys

from kdplugin import quickstart
from kdplugin.reports.cli import run_tool


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(
        description='Draw digit scenes, train teacher, baseline and distilled student, compare them.'
    ).parse_args(argv)

    def body() -> int:
        quickstart.run_demo()
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
