#!/usr/bin/env python
"""Train a config, with or without distillation: tools/train.py CONFIG [--resume [FILE]] ..."""

from __future__ import annotations

import argparse
import os
import sys

from torch.distributed.elastic.multiprocessing.errors import record

from kdplugin import launch
from kdplugin.reports.cli import run_tool


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a config, with or without distillation.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where checkpoints and logs go (default: work_dirs/<config name>)')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--resume', nargs='?', const='auto', help='go on from FILE, or from the newest complete checkpoint'
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
        launch.train(
            launch.prepare(
                config,
                work_dir=arguments.work_dir,
                amp=arguments.amp,
                resume=arguments.resume,
                launcher=arguments.launcher,
            )
        )
        return 0

    recorded = record(body)  # torchrun shows the traceback of the process that failed first
    return run_tool(lambda: recorded() or 0)


if __name__ == '__main__':
    sys.exit(main())
