#!/usr/bin/env python
"""What a distilling step costs: tools/benchmarks/step_time.py --rival CHECKOUT_OF_MMRAZOR.

Student, teacher's forward pass to the tap, our step and MMRazor's take turns in one process; medians are reported, with
the middle half of all rounds. Peak memory is that of a process which takes three steps of one kind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from measuring import in_process, peak_memory, write_json
from step_time_cases import (
    CASES,
    Case,
    batch_of,
    build_ours,
    build_plain,
    build_theirs,
    configs,
    teacher_forward,
    training_step,
)

from kdplugin.distill.distiller import distillation_of
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.teacher_speed import relative_difference
from kdplugin.reports.cli import run_tool

RESULTS = Path('docs') / 'results' / 'step_time.json'
DTYPES = ('float32', 'bfloat16')
Setup = argparse.Namespace
Steps = dict[str, Callable[[], None]]


def contenders(case: Case, dtype: str, setup: Setup, folder: str, names: tuple[str, ...] = ()) -> Steps:
    """Build what takes turns, by name; all of it, or only what is named."""
    student, teacher = configs(case, setup.size)
    torch.manual_seed(0)
    checkpoint = str(Path(folder) / 'teacher.pth')
    plain = build_plain(teacher)
    torch.save({'state_dict': plain.state_dict()}, checkpoint)
    batch = batch_of(setup.size, setup.images, setup.device, student)
    for number, sample in enumerate(batch[1]):
        sample.set_metainfo({'img_path': f'{number}.jpg'})
    options: dict[str, Any] = {} if dtype == 'float32' else {'precision': dtype}
    if case.cached:
        options['cache'] = {'dir': str(Path(folder) / 'cache'), 'max_bytes': '2GB'}

    def ours() -> Callable[[], None]:
        return training_step(build_ours(case, student, teacher, checkpoint, options).to(setup.device), batch)

    def theirs(kind: str) -> Callable[[], None]:
        model = build_theirs(case, kind, setup.rival, student, teacher, checkpoint)
        return training_step(model.to(setup.device), batch)

    makers: dict[str, Callable[[], Callable[[], None]]] = {
        'student': lambda: training_step(build_plain(student).to(setup.device), batch),
        'teacher': lambda: teacher_forward(case, plain.to(setup.device), batch),
        'ours': ours,
    }
    if setup.rival is not None:
        makers |= {kind: lambda kind=kind: theirs(kind) for kind in case.rivals}  # type: ignore[misc]
    return {name: make() for name, make in makers.items() if not names or name in names}


def timed(step: Callable[[], None], device: str) -> float:
    """Return the milliseconds of one call."""
    if device != 'cpu':
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device != 'cpu':
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def alternate(steps: Steps, rounds: int, device: str) -> dict[str, list[float]]:
    """Time each step once a round, each round beginning with another one; a first round is not counted."""
    names = list(steps)
    for name in names:
        steps[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(timed(steps[name], device))
    return times


def spread(values: list[float]) -> list[float]:
    """Return the quartiles around a median."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
    return [round(low, 3), round(high, 3)]


def row_of(case: Case, dtype: str, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return medians, and ours against student and teacher (against the student alone where outputs are cached).

    Ratios are of the same round; the interval is the middle half of them.
    """
    medians = {name: round(median(values), 1) for name, values in times.items()}
    rivals = {name: medians[name] for name in times if name not in ('student', 'teacher', 'ours')}
    best = min(rivals, key=rivals.__getitem__) if rivals else None
    whole = [
        student + (0 if case.cached else teacher)
        for student, teacher in zip(times['student'], times['teacher'], strict=True)
    ]
    ratios = [ours / other for ours, other in zip(times['ours'], whole, strict=True)]
    row: dict[str, Any] = {
        'case': case.name,
        'teacher_dtype': dtype,
        'student_ms': medians['student'],
        'teacher_ms': medians['teacher'],
        'ours_ms': medians['ours'],
        'mmrazor_ms': rivals[best] if best else None,
        'ratio': round(medians['ours'] / (medians['student'] + (0 if case.cached else medians['teacher'])), 3),
        'ratio_quartiles': spread(ratios),
        'mmrazor_each_ms': rivals,
        'rounds': len(ratios),
    }
    if best:
        against = [ours / other for ours, other in zip(times['ours'], times[best], strict=True)]
        row |= {'ours_to_mmrazor': round(median(against), 3), 'ours_to_mmrazor_quartiles': spread(against)}
    return row


def memory_of(case: Case, dtype: str, setup: Setup, name: str) -> int:
    """Return the peak memory in MB after three steps of one contender, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        step = contenders(case, dtype, setup, folder, (name,))[name]
        if setup.device != 'cpu':
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        return (peak_memory() if setup.device == 'cpu' else torch.cuda.max_memory_allocated()) >> 20


@torch.no_grad()
def teacher_difference(case: Case, dtype: str, setup: Setup) -> float:
    """Return how far our teacher's outputs at the tap are from the eager one's in float32, relative to their norm."""
    torch.manual_seed(0)
    student, config = configs(case, setup.size)
    images, samples = batch_of(setup.size, setup.images, setup.device, student)
    plain = build_plain(config).to(setup.device).eval()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(Path(folder) / 'teacher.pth')
        torch.save({'state_dict': plain.state_dict()}, checkpoint)
        options = {} if dtype == 'float32' else {'precision': dtype}
        model = build_ours(case, student, config, checkpoint, options)
        teacher = next(iter(distillation_of(model).teachers.values()))  # type: ignore[union-attr]
        ours = teacher.outputs([case.tap], (images, samples), {})
    with catch(plain, [case.tap], 'teacher') as caught:
        plain(images, samples, mode='tensor')
    return relative_difference(ours, caught.tensors)


def measure(case: Case, dtype: str, setup: Setup) -> dict[str, Any]:
    """Time one case, in this process."""
    torch.set_num_threads(setup.threads)
    with tempfile.TemporaryDirectory() as folder:
        steps = contenders(case, dtype, setup, folder)
        row = row_of(case, dtype, alternate(steps, setup.rounds, setup.device))
    return row | {'device': device_name(setup.device), 'threads': setup.threads, 'images': setup.images}


def device_name(device: str) -> str:
    """Return what a person calls the device."""
    if device != 'cpu':
        return torch.cuda.get_device_name()
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    return next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), 'CPU')


def run_all(setup: Setup) -> None:
    """Measure every case; rows of this device measured before are replaced, others kept."""
    rows = json.loads(setup.out.read_text())['rows'] if setup.out.is_file() else []
    for name in setup.cases:
        for dtype in setup.dtypes:
            case = CASES[name]
            row = in_process(measure, case, dtype, setup) | {'size': setup.size}
            if setup.memory:
                kinds = ('student', 'ours', *(case.rivals if setup.rival is not None else ()))
                row['peak_mb'] = {kind: in_process(memory_of, case, dtype, setup, kind) for kind in kinds}
            if not case.cached:
                row['teacher_difference'] = float(f'{in_process(teacher_difference, case, dtype, setup):.1e}')
            same = {key: row[key] for key in ('case', 'teacher_dtype', 'device')}
            rows = [*(old for old in rows if {key: old.get(key) for key in same} != same), row]
            write_json(setup.out, {'rows': rows})
            print(json.dumps(row), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Milliseconds of a distilling step and of its parts.')
    parser.add_argument('--rival', type=Path, help='checkout of MMRazor 1.0.0; without it, it is not compared')
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=list(DTYPES), help="the teacher's")
    parser.add_argument('--size', type=int, default=320)
    parser.add_argument('--images', type=int, default=2, help='in a batch')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--memory', action='store_true', help='peak memory too, a process for each')
    parser.add_argument('--out', type=Path, default=RESULTS)
    setup = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = str(setup.threads)

    def body() -> int:
        run_all(setup)
        print(f'wrote {setup.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
