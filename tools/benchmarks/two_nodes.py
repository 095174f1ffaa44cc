#!/usr/bin/env python
"""Two network namespaces as two machines, two processes each, through tools/dist_train.sh over gloo.

tools/benchmarks/two_nodes.py, as root on Linux: four processes train 20 iterations with one image each; rank 3 is
killed on the way, all others have to end, and a restart with --resume goes on. The losses, averaged over the processes,
are compared with those of one process that sees the four images in one batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crash_run import prepare_files, run_config
from measuring import write_json

from kdplugin.reports.cli import run_tool

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path('docs') / 'results' / 'two_nodes.json'
ITERATIONS, DIES_AT, SAVED_AT = 20, 13, 12
NODES, PROCESSES = 2, 2
PORT = '29517'
TOLERANCE = 1e-4


def ip(words: str) -> None:
    subprocess.run(['ip', *words.split()], check=True)  # noqa: S603, S607


@contextlib.contextmanager
def machines() -> Iterator[list[tuple[str, str, str]]]:
    """Make two network namespaces joined by a cable; yield name, interface and address of each."""
    nodes = [(f'kd{os.getpid()}n{n}', f'kd{n}', f'10.231.7.{n + 1}') for n in range(NODES)]
    try:
        for name, _, _ in nodes:
            ip(f'netns add {name}')
        first, second = nodes
        ip(f'link add {first[1]} netns {first[0]} type veth peer name {second[1]} netns {second[0]}')
        for name, interface, address in nodes:
            ip(f'-n {name} addr add {address}/24 dev {interface}')
            ip(f'-n {name} link set {interface} up')
            ip(f'-n {name} link set lo up')
        yield nodes
    finally:
        for name, _, _ in nodes:
            subprocess.run(['ip', 'netns', 'delete', name], check=False)  # noqa: S603, S607


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a training: this Python first on PATH, no GPU, the hooks of the benchmark."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return {
        **os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': str(ROOT / 'tools' / 'benchmarks'), **more,
    }  # fmt: skip


def train_on(nodes: Sequence[tuple[str, str, str]], config: Path, *words: str) -> tuple[list[int], float, str]:
    """Run tools/dist_train.sh on every node; return the exit codes, when the last one ended, and what they said."""
    running = []
    for rank, (name, interface, _) in enumerate(nodes):
        settings = environment(
            NNODES=str(len(nodes)), NODE_RANK=str(rank), MASTER_ADDR=nodes[0][2], PORT=PORT,
            GLOO_SOCKET_IFNAME=interface,
        )  # fmt: skip
        log = config.with_suffix(f'.node{rank}.log').open('w')
        command = ['ip', 'netns', 'exec', name, str(ROOT / 'tools/dist_train.sh'), str(config), str(PROCESSES), *words]
        started = subprocess.Popen(command, env=settings, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        running.append((started, log))
    codes = [process.wait() for process, _ in running]
    ended = time.time()
    for _, log in running:
        log.close()
    said = '\n'.join(Path(log.name).read_text() for _, log in running)
    return codes, ended, said


def config_of(folder: Path, name: str, batch: int, hook: dict[str, Any]) -> Path:
    """Write a config without anything that depends on how a batch is split, and return its path."""
    config = run_config(
        folder, folder / name, iterations=ITERATIONS, batch=batch, norm='GN', dropout=0.0, augment=False, validate=False
    )
    for pair in config.model.pairs.values():
        pair.loss.ignore_index = None  # the images have different numbers of ignored pixels
    config.custom_imports = dict(imports=['crash_run'], allow_failed_imports=False)
    config.custom_hooks = [dict(type='mmengine.LossNote', **hook)]
    config.experiment_name = name
    config.default_hooks.checkpoint.interval = SAVED_AT
    config.dump(folder / f'{name}.py')
    return folder / f'{name}.py'


def curve(work_dir: Path) -> dict[int, dict[str, float]]:
    """Return the losses of each iteration, averaged over the processes; the last entry of an iteration counts."""
    ranks = []
    for file in sorted(work_dir.glob('rank*.jsonl')):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        ranks.append({line.pop('iteration'): line for line in lines})
    steps = set.intersection(*(set(rank) for rank in ranks))
    return {
        step: {name: sum(rank[step][name] for rank in ranks) / len(ranks) for name in ranks[0][step]}
        for step in sorted(steps)
    }


def measure(folder: Path) -> dict[str, Any]:
    """Return the results of the killed run, the resumed one and the one with joined batches."""
    prepare_files(folder, 'GN')
    joined = config_of(folder, 'joined', NODES * PROCESSES, {})
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(joined)]
    subprocess.run(command, env=environment(), check=True)  # noqa: S603
    split = config_of(folder, 'split', 1, dict(rank=NODES * PROCESSES - 1, iteration=DIES_AT))
    with machines() as nodes:
        killed, ended, said = train_on(nodes, split)
        seconds = ended - float((folder / 'split/died').read_text())
        (folder / 'split.py').write_text(split.read_text().replace(f'iteration={DIES_AT}', 'iteration=-1'))
        resumed, _, more = train_on(nodes, split, '--resume')
    one, many = curve(folder / 'joined'), curve(folder / 'split')
    apart = [abs(many[step][name] - one[step][name]) for step in one if step in many for name in one[step]]
    return {
        'nodes': NODES, 'processes_per_node': PROCESSES, 'iterations': len(one), 'compared_iterations': len(many),
        'largest_difference': max(apart), 'largest_loss': max(step['loss'] for step in one.values()),
        'killed_rank': NODES * PROCESSES - 1, 'killed_before_iteration': DIES_AT, 'exit_codes_after_the_kill': killed,
        'seconds_until_all_ended': round(seconds, 1), 'exit_codes_after_resume': resumed,
        'resumed_from_iteration': SAVED_AT, 'said': '' if resumed == [0, 0] else (said + more)[-3000:],
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Two namespaces as two machines, compared with one process.')
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)

    def body() -> int:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(Path(folder))
        write_json(arguments.out, results)
        print(json.dumps(results, indent=2))
        whole = results['compared_iterations'] == results['iterations'] == ITERATIONS
        return int(not whole or results['largest_difference'] > TOLERANCE)

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
