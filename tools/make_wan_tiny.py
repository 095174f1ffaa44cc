#!/usr/bin/env python
"""Write the tiny Wan pipeline that configs/wan/wan-lite_tiny.py learns from: tools/make_wan_tiny.py [--out FOLDER]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdplugin.datasets.prompts import read_prompts
from kdplugin.models.generators.tiny_pipeline import make_tiny_pipeline
from kdplugin.reports.cli import run_tool


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description='Train and write a tiny video transformer with its text encoder.')
    parser.add_argument('--out', type=Path, default=Path('work_dirs') / 'wan_tiny')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--vae', action='store_true', help='write a random VAE of the right shape too')
    arguments = parser.parse_args(argv)

    def body() -> int:
        folder = make_tiny_pipeline(arguments.out, prompts=read_prompts(), seed=arguments.seed, vae=arguments.vae)
        print(f'{folder} is ready.')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
