#!/usr/bin/env python
"""A Wan-1.3B-layout checkpoint of real size to WanLiteStudent: seconds and memory by method, beside WanDistiller's.

tools/benchmarks/projection.py --work FOLDER --rival CHECKOUT --json docs/results/projection.json
FOLDER takes 5.7 GB of random weights in shards, which stay for the next run; CHECKOUT holds WanDistiller's
projection_mapper.py (github.com/kat3ri/WanDistiller). Each method runs in a process of its own. The 14B layout is
planned without values.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import safetensors.torch
import torch
from measuring import peak_memory
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.reports.cli import run_tool
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.layouts.skeletons import wan_layout, wan_lite_layout
from kdplugin.weights.layouts.wan import StaticWan, to_native
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.plan_shapes import MetaSource, check_plan
from kdplugin.weights.presets import wan_lite_plan
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.tensor_source import MemorySource, TensorSource
from kdplugin.weights.reports.report import PlanReport

METHODS = ('truncate', 'average', 'svd')
SMALL, LARGE = (1536, 8960, 30), (5120, 13824, 40)
SHARD = 1 << 30
ALLOWED = 2 << 30
"""Peak memory beyond the student itself that the project sets as its target."""


def write_teacher(folder: Path) -> TensorSource:
    """Write the 1.3B layout with random values under Wan's own names, as shards of up to 1 GB with their index."""
    index = folder / 'diffusion_pytorch_model.safetensors.index.json'
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        shards: dict[str, str] = {}
        for number, names in enumerate(_shards(), 1):
            file = f'diffusion_pytorch_model-{number:05d}.safetensors'
            layout = wan_layout(*SMALL)
            values = {to_native(name): _random(tuple(layout[name].shape), generator) for name in names}
            safetensors.torch.save_file(values, folder / file)
            shards |= dict.fromkeys(values, file)
        index.write_text(json.dumps({'metadata': {}, 'weight_map': shards}))
    return open_source(folder)


def _shards() -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, value in wan_layout(*SMALL).items():
        if names and size + 4 * value.numel() > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += 4 * value.numel()
    yield names


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    scale = 1.0 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator) * scale


def measure(folder: Path, method: str) -> dict[str, Any]:
    """Project with our functions; meant for a process of its own, whose peak memory is measured."""
    imported = peak_memory()
    start, computing = time.perf_counter(), time.process_time()
    source = open_source(folder)
    plan = wan_lite_plan(source, method=method)
    planned = time.perf_counter()
    applied = apply_plan(plan, source)
    done, computed = time.perf_counter(), time.process_time()
    student = sum(value.nbytes for value in wan_lite_layout().values())
    matrices = [applied.errors[e.target] for e in plan.entries if e.loads and len(e.shape) > 1]
    return {
        'method': method,
        'seconds': round(done - start, 2),
        'cpu_seconds': round(computed - computing, 2),
        'plan_seconds': round(planned - start, 2),
        'peak_rss_bytes': peak_memory(),
        'rss_after_imports_bytes': imported,
        'student_bytes': student,
        'within_memory_target': peak_memory() < student + ALLOWED,
        'mean_relative_error_of_matrices': round(fmean(matrices), 4),
        **_check_parts(applied.tensors, plan),
    }


def _check_parts(tensors: dict[str, Tensor], plan: ProjectionPlan) -> dict[str, Any]:
    entries = [plan[f'blocks.{i}.attn.in_proj_weight'] for i in range(16)]
    parts = [[name.rpartition('.')[0][-1] for name in entry.sources] for entry in entries]
    finite = all(bool(torch.isfinite(value).all()) for value in tensors.values())
    return {'q_k_v_from': ''.join(sorted({''.join(part) for part in parts})), 'finite': finite}


def measure_rival(folder: Path, method: str, checkout: Path, blocks: int) -> dict[str, Any]:
    """Time WanDistiller's ``project_weight_dimensions`` alone, on the tensors that its own key mapping names.

    Its layer choice is asked for 30 layers; reading is not counted. A part of the 16 blocks stands for all.
    """
    module = load_rival(checkout)
    source, student = open_source(folder), wan_lite_layout()
    seconds = computing = 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        layers = module.select_teacher_layers(16, SMALL[2])
        for name, value in student.items():
            if not name.startswith('blocks.') or int(name.split('.')[1]) >= blocks:
                continue
            found = module.map_teacher_to_student_key(name, int(name.split('.')[1]), layers)
            teacher = [source[key] for key, _ in found if key in source]
            if teacher:
                start, begun = time.perf_counter(), time.process_time()
                module.project_weight_dimensions(torch.cat(teacher), tuple(value.shape), method)
                seconds += time.perf_counter() - start
                computing += time.process_time() - begun
    times = {'seconds': round(seconds, 2), 'cpu_seconds': round(computing, 2)}
    return {'method': method, 'blocks': blocks, **times, 'last_layer': layers[-1]}


def rival_parts(checkout: Path) -> dict[str, dict[str, int]]:
    """Return from where WanDistiller fills the rows of q, k and v: by the number of rows, for truncate."""
    module, wide, narrow = load_rival(checkout), SMALL[0], 1024
    rows = torch.arange(3 * wide).float()[:, None].expand(-1, wide)
    with contextlib.redirect_stdout(io.StringIO()):
        scale = (wide / narrow) ** 0.5
        filled = module.project_weight_dimensions(rows, (3 * narrow, narrow), 'truncate')[:, 0] / scale
    origin = ['qkv'[round(float(row)) // wide] for row in filled]
    return {part: dict(Counter(origin[i * narrow : (i + 1) * narrow])) for i, part in enumerate('qkv')}


def load_rival(checkout: Path) -> Any:
    """Import WanDistiller's module from a checkout."""
    file = checkout / 'projection_mapper.py'
    if not file.is_file():
        raise CheckpointError(f'Expected projection_mapper.py in {checkout} but it is not there. Give the checkout.')
    spec = importlib.util.spec_from_file_location('projection_mapper', file)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_large(method: str) -> dict[str, Any]:
    """Plan the 14B layout without values and check every step's shapes."""
    start = time.perf_counter()
    source = MemorySource(wan_layout(*LARGE), 'Wan 2.2 T2V-A14B')
    plan = wan_lite_plan(source, method=method)
    check_plan(plan, MetaSource(StaticWan(source)))
    return {'method': method, 'seconds': round(time.perf_counter() - start, 2), **coverage(plan, source)}


def coverage(plan: ProjectionPlan, source: TensorSource) -> dict[str, Any]:
    """Return what is loaded, what is random and why, and how much of the teacher is used."""
    report = PlanReport(plan)
    reasons: dict[str, dict[str, Any]] = {}
    for entry in plan.entries:
        if not entry.loads:
            row = reasons.setdefault(entry.target.split('.')[0], {'parameters': 0, 'why': entry.reason})
            row['parameters'] += math.prod(entry.shape)
    view = StaticWan(source)
    used = {name for entry in plan.entries for name in entry.sources}
    sizes = {name: math.prod(source.shape(name)) for name in source}
    return {
        'teacher_tensors': len(sizes),
        'teacher_parameters': sum(sizes.values()),
        'teacher_parameters_read': sum(math.prod(view.shape(name)) for name in used),
        'layers': plan.settings['layers'],
        'groups': len(plan.groups),
        'totals': {kind: row for kind, row in report.totals.items() if row['tensors']},
        'coverage': report.coverage,
        'random': reasons,
    }


def in_process(arguments: argparse.Namespace, *extra: str) -> dict[str, Any]:
    """Run one measurement in a process of its own and return what it printed."""
    command = [sys.executable, __file__, '--work', str(arguments.work), '--threads', str(arguments.threads), *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CheckpointError(f'Expected a result of {" ".join(extra)} but got {done.stderr[-500:]}. See above.')
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(result))
    return result


def everything(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all measurements."""
    source = write_teacher(arguments.work)
    plan = wan_lite_plan(source)
    result: dict[str, Any] = {
        'machine': {
            'cpus': os.cpu_count(), 'threads': arguments.threads, 'torch': torch.__version__,
            'python': platform.python_version(), 'load_before': round(os.getloadavg()[0], 2),
        },
        'teacher': {
            'layout': 'Wan 2.1 T2V-1.3B, random values, float32',
            'shards': len(list(arguments.work.glob('*.safetensors'))),
            'bytes': sum(file.stat().st_size for file in arguments.work.glob('*.safetensors')),
            **coverage(plan, source),
        },
        'ours': [in_process(arguments, '--one', method) for method in METHODS],
    }  # fmt: skip
    if arguments.rival:
        rival = ['--rival', str(arguments.rival), '--blocks', str(arguments.blocks), '--rival-method']
        rows = [in_process(arguments, *rival, method) for method in METHODS]
        for ours, theirs in zip(result['ours'], rows, strict=True):
            theirs['seconds_of_16_blocks'] = round(theirs['seconds'] * 16 / theirs['blocks'], 2)
            cpu = theirs['cpu_seconds'] * 16 / theirs['blocks']
            theirs['times_our_cpu_seconds'] = round(cpu / ours['cpu_seconds'], 2)
        result['wan_distiller'] = {
            'repository': 'github.com/kat3ri/WanDistiller', 'revision': arguments.revision,
            'what': 'project_weight_dimensions alone, reading not counted, against all of ours with reading',
            'runs': rows, 'rows_of_in_proj_come_from': rival_parts(arguments.rival),
        }  # fmt: skip
    result['layout_14b'] = [plan_large(method) for method in METHODS]
    return result


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--work', type=Path, required=True, help='folder for the random teacher, 5.7 GB')
    parser.add_argument('--rival', type=Path, help='checkout of WanDistiller')
    parser.add_argument('--revision', default='bce3055', help='its revision, for the record')
    parser.add_argument('--blocks', type=int, default=16, help='blocks of the student that are timed with it')
    parser.add_argument('--json', type=Path, help='write the result here')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--one', choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument('--rival-method', choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)

    def single(action: Callable[[], dict[str, Any]]) -> int:
        print(json.dumps(action()))
        return 0

    def body() -> int:
        if arguments.one:
            return single(lambda: measure(arguments.work, arguments.one))
        if arguments.rival_method:
            return single(
                lambda: measure_rival(arguments.work, arguments.rival_method, arguments.rival, arguments.blocks)
            )
        text = json.dumps(everything(arguments), indent=1)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(text + '\n')
        print(text)
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
