#!/usr/bin/env python
"""Kill a training at random moments, resume it, and compare it with one that was never killed.

tools/benchmarks/crash_test.py: 30 times kill -9 while it trains, validates or saves, ten times each; every resumed run
has to end with the weights, adapters, averages, optimizer and random number generators of the uninterrupted run, bit
for bit. Then the newest checkpoint is cut at 20 random places and flipped in 20 random bits: each is to be found out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from crash_run import DONE, PHASES, SAVING, TRAINING, VALIDATION, prepare_files, run
from measuring import write_json

from kdplugin.hooks.find_checkpoint import candidates, latest_complete_checkpoint
from kdplugin.reports.cli import run_tool
from kdplugin.weights.reading.io import read_checkpoint

RESULTS = Path('docs') / 'results' / 'crash_test.json'
PARTS = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'kdplugin', 'rng_states')
LIMIT = 600.0
"""Seconds after which a run that has not ended has failed."""


class Trial:
    """One training in a process of its own."""

    def __init__(self, folder: Path, work_dir: Path, resume: bool = False) -> None:
        context: Any = get_context('fork')  # of this process, which has imported everything and runs one thread
        self.note = context.RawArray('i', 1 + len(PHASES))
        self.process = context.Process(target=run, args=(str(folder), str(work_dir), resume, self.note))
        self.began = time.perf_counter()
        self.process.start()

    def finish(self) -> bool:
        """Wait for its end; True is a complete run."""
        self.process.join(LIMIT)
        if self.process.is_alive():
            self.kill()
        return self.process.exitcode == 0 and self.note[0] == DONE

    def kill_in(self, phase: int, occurrence: int, delay: float) -> str:
        """Kill its process group some seconds after a phase was entered the n-th time; return where it was."""
        while self.note[1 + phase] < occurrence and self.process.is_alive():
            time.sleep(0.001)
        time.sleep(delay)
        return self.kill()

    def kill(self) -> str:
        where = PHASES[self.note[0]]
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        return where


def fingerprint(checkpoint: Mapping[str, Any]) -> str:
    """Return the sha256 over everything in a checkpoint from which a run goes on."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                digest.update(f'{key}:'.encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for one in value:
                add(one)
        else:
            digest.update(repr(value).encode())

    add({part: checkpoint[part] for part in PARTS})
    return digest.hexdigest()


def end_of(work_dir: Path) -> str:
    """Return the fingerprint of a run's last checkpoint; empty if there is none."""
    last = latest_complete_checkpoint(work_dir)
    return fingerprint(read_checkpoint(last)) if last else ''


def crash(folder: Path, work_dir: Path, draw: random.Random, phase: int, entered: int, span: float) -> dict[str, Any]:
    """Kill one run, resume it and say what came of it."""
    occurrence, delay = draw.randint(1, entered), draw.uniform(0.0, span)
    where = Trial(folder, work_dir).kill_in(phase, occurrence, delay)
    half = len(list(work_dir.glob('.*.pth.????????')))
    found = latest_complete_checkpoint(work_dir) if work_dir.is_dir() else None
    resumed = Trial(folder, work_dir, resume=True)
    complete = resumed.finish()
    return {
        'aimed_at': f'{PHASES[phase]} {occurrence}',
        'killed_in': where,
        'half_written_files': half,
        'resumed_from': found.name if found else 'the beginning',
        'resumed': complete,
        'end': end_of(work_dir),
        'seconds': round(time.perf_counter() - resumed.began, 1),
    }


def damaged(work_dir: Path, draw: random.Random, count: int) -> dict[str, int]:
    """Return how many of the truncations and flipped bits of the newest checkpoint are found out."""
    newest = next(candidates(work_dir))
    whole = newest.read_bytes()
    found = Counter({'truncations': 0, 'flipped_bits': 0})
    for _ in range(count):
        place = draw.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        for kind, content in (('truncations', whole[:place]), ('flipped_bits', flipped)):
            newest.write_bytes(content)
            taken = latest_complete_checkpoint(work_dir)
            found[kind] += taken is not None and taken != newest
    newest.write_bytes(whole)
    return dict(found)


def measure(kills: int, damages: int, seed: int, work: Path, out: Path | None = None) -> dict[str, Any]:
    """Return the results of all trials; they are written to ``out`` after each of them."""
    draw = random.Random(seed)  # noqa: S311
    torch.set_num_threads(1)
    prepare_files(work)
    reference = Trial(work, work / 'reference')
    if not reference.finish():
        raise RuntimeError((work / 'reference.log').read_text()[-2000:])
    span = (time.perf_counter() - reference.began) / 40
    expected = end_of(work / 'reference')
    found = damaged(work / 'reference', draw, damages)
    trials: list[dict[str, Any]] = []
    results = summary(trials, found, damages, seed)
    for number in range(kills):
        phase = (TRAINING, VALIDATION, SAVING)[number % 3]
        trial = crash(work, work / f'run{number}', draw, phase, reference.note[1 + phase], span)
        trial['equal'] = trial.pop('end') == expected
        trials.append(trial)
        print(number, trial, flush=True)
        shutil.rmtree(work / f'run{number}')
        results = summary(trials, found, damages, seed)
        if out is not None:
            write_json(out, results)
    return results


def summary(
    trials: Sequence[Mapping[str, Any]], found: Mapping[str, int], damages: int, seed: int
) -> dict[str, Any]:  # fmt: skip
    return {
        'seed': seed,
        'kills': len(trials),
        'killed_in': dict(Counter(str(trial['killed_in']) for trial in trials)),
        'with_a_half_written_file': sum(bool(trial['half_written_files']) for trial in trials),
        'resumed': sum(bool(trial['resumed']) for trial in trials),
        'equal_bit_for_bit': sum(bool(trial['equal']) for trial in trials),
        'truncations': damages,
        'truncations_found_out': found['truncations'],
        'flipped_bits': damages,
        'flipped_bits_found_out': found['flipped_bits'],
        'trials': list(trials),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Kill a training at random moments and compare the resumed runs.')
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--damages', type=int, default=20, help='truncations, and as many flipped bits')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '1'

    def body() -> int:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(arguments.kills, arguments.damages, arguments.seed, Path(folder), arguments.out)
        print(f'wrote {arguments.out}')
        return int(results['equal_bit_for_bit'] < arguments.kills)

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
