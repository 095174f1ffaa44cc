#!/usr/bin/env python
"""Which shipped architectures distil: tools/benchmarks/architecture_sweep.py.

One config of each folder that mmdet and mmseg ship: the smallest plain one whose model takes a training step here; a
folder without such a config is left out, with the reason. The model learns from itself, with a tap at the neck or
backbone and one at the head where a layer fires there; its checkpoint has to fit the plain model in every tensor. Each
config is a process of its own with a bound on time and memory; the results are written after each folder, and folders
examined before are not examined again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from architecture_step import examine
from measuring import write_json

from kdplugin.errors import ConfigError
from kdplugin.reports.cli import run_tool

PACKAGES = ('mmdet', 'mmseg')
RESULTS = Path('docs') / 'results' / 'architecture_sweep.json'
WORK = Path('work_dirs') / 'architecture_sweep'
METHOD = 'forkserver'
HANGS = 10
"""How many times the bound on its processor time a process may take on the clock."""
LATE = 'not done after'
TRIES = 3
"""Configs of a folder that are tried until a plain model trains, unless the smallest takes too long."""
SMALL = (r'r18|tiny|[-_]t[-_.]|nano|mit-b0|b0', r'r50|[-_]s[-_.]|small|mobilenet')
"""Parts of names of small models, the smallest first."""
LATER = r'dconv|mstrain|ms-|syncbn|amp|fp16|lsj|crop|640|instaboost|panoptic|levir|dsdl'
"""Parts of names of variants, taken where there is nothing else."""


def config_root(package: str) -> Path:
    """Return the folder of configs that a package ships."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f'Expected {package} to be installed but it is not. Run make env.')
    return Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'


def preference(name: str) -> tuple[int, bool, int, str]:
    """Return a key that puts plain variants of small models first."""
    size = next((rank for rank, pattern in enumerate(SMALL) if re.search(pattern, name)), len(SMALL))
    return size, bool(re.search(LATER, name)), len(name), name


def has_model(config: Path) -> bool:
    """Tell from the text whether a config has a model of its own or inherits something."""
    return re.search(r'^(model|_base_)\s*=', config.read_text(), re.MULTILINE) is not None


def folders(package: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield each architecture folder and its configs with a model, the ones to try first first."""
    for folder in sorted(path for path in config_root(package).iterdir() if path.is_dir()):
        if folder.name.startswith('_'):
            continue
        configs = [path for path in folder.rglob('*.py') if '_base_' not in path.parts and has_model(path)]
        yield folder.name, sorted(configs, key=lambda path: preference(path.name))


def _child(config: Path, answer: Connection, seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    answer.send(examine(config))


def isolated(config: Path, seconds: int, memory: int) -> dict[str, Any]:
    """Examine a config in a process of its own, which ends after ``seconds`` of processor time, or when it hangs."""
    context: Any = get_context(METHOD)
    context.set_forkserver_preload(['architecture_step', 'mmdet.models', 'mmseg.models'])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(config, theirs, seconds, memory))
    process.start()
    theirs.close()
    outcome = {'config': config.name, 'stage': 'plain', 'reason': f'{LATE} {seconds} s of processor time'}
    try:
        if ours.poll(HANGS * seconds):
            outcome = ours.recv()
    except EOFError:
        process.join(5)
        if process.exitcode != -signal.SIGXCPU:
            outcome['reason'] = f'the process ended with exit code {process.exitcode}'
    if process.is_alive():
        process.terminate()
    process.join()
    return outcome


def summary(outcomes: Mapping[str, Mapping[str, Any]], left: int) -> dict[str, Any]:
    """Return how many folders distil of those whose plain model trains, and why the others do not."""
    counted = {name: outcome for name, outcome in outcomes.items() if outcome['stage'] != 'plain'}
    ok = [name for name, outcome in counted.items() if outcome['stage'] == 'ok']
    return {
        'total': len(counted),
        'ok': len(ok),
        'failed': [
            {'folder': name, 'reason': f'{outcome["stage"]}: {outcome["reason"]}', 'config': outcome['config']}
            for name, outcome in counted.items()
            if outcome['stage'] != 'ok'
        ],
        'plain_model_does_not_train': [
            {'folder': name, 'reason': outcome['reason'], 'config': outcome['config']}
            for name, outcome in outcomes.items()
            if outcome['stage'] == 'plain'
        ],
        'taps': {name: outcome['taps'] for name, outcome in counted.items()},
        'not_examined_yet': left,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Self-distillation of one shipped config per folder.')
    parser.add_argument('--packages', nargs='+', choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument('--folders', nargs='+', help='these alone; by default all')
    parser.add_argument('--again', action='store_true', help='examine again what was examined before')
    parser.add_argument('--seconds', type=int, default=120, help='bound on the processor time of a config')
    parser.add_argument('--gigabytes', type=float, default=16, help='bound on the address space of a folder')
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--work', type=Path, default=WORK, help='folder of the outcomes')
    arguments = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '1'

    def body() -> int:
        chosen = {package: dict(folders(package)) for package in PACKAGES}
        for package in arguments.packages:
            for name, configs in chosen[package].items():
                if arguments.folders and name not in arguments.folders:
                    continue
                record(arguments, package, name, configs)
                write_json(arguments.out, collect(arguments.work, chosen))
        print(f'wrote {arguments.out}')
        return 0

    return run_tool(body)


def record(arguments: argparse.Namespace, package: str, name: str, configs: Sequence[Path]) -> None:
    """Examine a folder unless that was done before, and keep the outcome."""
    file = arguments.work / package / f'{name}.json'
    if file.is_file() and not arguments.again:
        return
    began = time.perf_counter()
    outcome = first_that_trains(configs, arguments.seconds, int(arguments.gigabytes * 2**30))
    write_json(file, outcome)
    print(f'{time.perf_counter() - began:6.1f} s  {package}/{name}: {outcome["stage"]} {outcome["reason"]}', flush=True)


def first_that_trains(configs: Sequence[Path], seconds: int, memory: int) -> dict[str, Any]:
    """Return the outcome of the first config whose plain model trains; else why the first does not."""
    first: dict[str, Any] = {'config': None, 'stage': 'plain', 'reason': 'no config with a model'}
    for number, config in enumerate(configs[:TRIES]):
        outcome = isolated(config, seconds, memory)
        if outcome['stage'] != 'plain':
            return outcome
        first = outcome if number == 0 else first
        if outcome['reason'].startswith(LATE):
            break
    return first


def collect(work: Path, chosen: Mapping[str, Mapping[str, Sequence[Path]]]) -> dict[str, Any]:
    """Return the summary of every outcome that is there."""
    results = {}
    for package, names in chosen.items():
        files = {name: work / package / f'{name}.json' for name in names}
        outcomes = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
        results[package] = summary(outcomes, len(names) - len(outcomes))
    return results


if __name__ == '__main__':
    sys.exit(main())
