#!/usr/bin/env python
"""Measure a checkpoint with a config's test loop: tools/test.py CONFIG CHECKPOINT [--work-dir DIR] ..."""

from __future__ import annotations

import argparse
import os
import sys

from mmengine.dist import is_main_process

from kdplugin import launch
from kdplugin.reports.cli import run_tool


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a checkpoint with a config's test loop.")
    parser.add_argument('config', help='config file; of a distillation config the student is tested')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='where logs go (default: work_dirs/<config name>)')
    parser.add_argument(
        '--remember',
        action='store_true',
        help='keep metrics beside the checkpoint; test what is not there',
    )
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings that win over the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))

    def body() -> int:
        config = launch.read_config(arguments.config, launch.parse_options(arguments.cfg_options))
        launch.prepare(config, work_dir=arguments.work_dir, launcher=arguments.launcher)
        metrics = (launch.measure if arguments.remember else launch.test)(config, arguments.checkpoint)
        if is_main_process():
            print('\n'.join(f'{name} {value:.4f}' for name, value in metrics.items()))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
