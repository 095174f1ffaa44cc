#!/usr/bin/env python
"""Check a training config without training it: tools/verify_config.py CONFIG [--static] [--json] ..."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin import launch
from kdplugin.config_files import config_file
from kdplugin.errors import ConfigError, KDPluginError
from kdplugin.launch import latest_complete_checkpoint
from kdplugin.preflight.findings import Findings, host_mistakes
from kdplugin.preflight.layers import layer_parts, plain_layers, select
from kdplugin.preflight.look import estimate_memory, list_layers
from kdplugin.preflight.memory import memory_parts, plain_estimates
from kdplugin.preflight.report import UNCHECKED, as_json, exit_code, report_parts
from kdplugin.preflight.verify import verify
from kdplugin.preflight.work_dir import work_dir_of
from kdplugin.reports.cli import run_tool
from kdplugin.reports.tables import show
from kdplugin.weights.reading.io import trust_checkpoints


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Report everything that is wrong with a config, before it costs a training.',
        epilog='Exit code 0: no errors (there may be warnings); 1: errors; 2: could not check. A config is Python: '
        'reading it runs it.',
    )
    parser.add_argument('config', help='config file, with or without distillation')
    parser.add_argument('--static', action='store_true', help='build no model and run nothing: seconds')
    parser.add_argument(
        '--list-layers', nargs='?', const='student', metavar='MODEL',
        help='list the modules of the student (the default), the teacher, or a teacher by its name',
    )  # fmt: skip
    parser.add_argument('--grep', metavar='REGEX', help='with --list-layers: only paths or types that it finds')
    parser.add_argument('--memory', action='store_true', help='estimate the peak memory of a training step on a GPU')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parser.add_argument('--gpus', type=int, metavar='N', help='processes of the training, to judge the learning rate')
    parser.add_argument('--download', action='store_true', help="fetch a teacher's checkpoint that is not here")
    train = parser.add_argument_group('as for tools/train.py')
    train.add_argument('--work-dir', help='where the run will write')
    train.add_argument('--resume', nargs='?', const='auto', metavar='FILE', help='the checkpoint to go on from')
    train.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings that win over the config')
    train.add_argument('--amp', action='store_true', help='accepted; says nothing here')
    train.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], help='accepted; says nothing here')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_tool(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    try:
        config_file(arguments.config)
        options = launch.parse_options(arguments.cfg_options)
    except ConfigError as error:
        return _refuse(error)
    started = time.perf_counter()
    try:
        config = launch.read_config(arguments.config, options)
    except ConfigError as error:
        found = Findings()
        with found.during('syntax'):
            found.error(arguments.config, error)
        return _tell(found, arguments, time.perf_counter() - started)
    if arguments.work_dir:
        config.work_dir = arguments.work_dir
    if arguments.resume:
        _set_resumed(config, arguments.resume)
    if arguments.list_layers or arguments.memory:
        return _look(config, arguments)
    found = verify(config, static=arguments.static, gpus=arguments.gpus, download=arguments.download)
    return _tell(found, arguments, time.perf_counter() - started)


def _set_resumed(config: Config, resume: str) -> None:
    """Let a config resume a file, or the newest of its work dir, as tools/train.py does."""
    chosen: str | Path | None = resume
    if resume == 'auto':
        with trust_checkpoints(config.get('trust_checkpoint') is True):
            chosen = latest_complete_checkpoint(work_dir_of(config))
    if chosen is not None:
        config.resume, config.load_from = True, str(chosen)


def _tell(found: Findings, arguments: argparse.Namespace, seconds: float) -> int:
    if arguments.json:
        mode = 'static' if arguments.static else 'dry run'
        _print_json(as_json(found, arguments.config, mode, seconds))
    else:
        show(*report_parts(found, arguments.config))
    return exit_code(found)


def _look(config: Config, arguments: argparse.Namespace) -> int:
    try:
        with host_mistakes():
            content = _look_at(config, arguments)
    except KDPluginError:
        raise
    except Exception as error:
        text = f'{type(error).__name__}: {error}'.splitlines()[0]
        return _refuse(ConfigError(f'Expected a model to look at but got {text}. Run without these options first.'))
    if arguments.json:
        _print_json(content)
    return 0


def _look_at(config: Config, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.list_layers:
        layers, how = list_layers(config, arguments.list_layers)
        layers = select(layers, arguments.grep)
        if not arguments.json:
            show(*layer_parts(layers, arguments.list_layers, how))
        return dict(config=arguments.config, model=arguments.list_layers, run=how, layers=plain_layers(layers))
    estimates = estimate_memory(config)
    if not arguments.json:
        show(*memory_parts(estimates, config.train_dataloader.batch_size if config.get('train_dataloader') else None))
    return dict(config=arguments.config, estimated=True, memory=plain_estimates(estimates))


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, default=str))


def _refuse(error: KDPluginError) -> int:
    print(f'error: {error}', file=sys.stderr)
    return UNCHECKED


if __name__ == '__main__':
    sys.exit(main())
