#!/usr/bin/env python
"""What distillation gains on digit scenes over several seeds: tools/benchmarks/quickstart_gain.py --seeds 0 1 2."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kdplugin import quickstart
from kdplugin.reports.cli import run_tool


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Baseline and KD under one teacher, several seeds.')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=Path('docs/results/quickstart.json'))
    arguments = parser.parse_args(argv)

    def body() -> int:
        result = quickstart.run_seeds(arguments.seeds)
        text = json.dumps(result, indent=2)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + '\n')
        print(f'{text}\nwrote {arguments.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
