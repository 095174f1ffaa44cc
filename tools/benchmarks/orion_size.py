#!/usr/bin/env python
"""Size and speed of ORION's EVA-ViT-L, whole and pruned: tools/benchmarks/orion_size.py

Random weights: sizes and speed do not depend on them. About 3 GB of memory with all blocks.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from measuring import write_json
from torch import nn

from kdplugin.models.backbones.eva_vit import EVAViT
from kdplugin.reports.backbone_cost import compare_costs, count_flops
from kdplugin.reports.cli import run_tool
from kdplugin.reports.model_cost import count_parameters

RESULTS = Path('docs') / 'results' / 'orion_size.json'
SIZE = 640
LATENCY_SIZE = 448
HEAD_DIM = 64
KEPT: dict[str, dict[str, int]] = {
    'teacher': dict(num_heads=16, ffn_hidden=2730),
    'heads8': dict(num_heads=8, ffn_hidden=2730),
    'half': dict(num_heads=8, ffn_hidden=1365),
}
"""Heads and neurons of each block."""


def build(**sizes: Any) -> nn.Module:
    """Return a backbone with ORION's settings but for these."""
    return EVAViT(**{'head_dim': HEAD_DIM, **sizes}).eval()


def measure(latency_size: int, rounds: int, depth: int, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the results as they go to the file.

    Args:
        latency_size: side of the timed image in pixels.
        rounds: timed passes of each model.
        depth: blocks of the timed models, a multiple of 3: two of each three attend in windows, one over the image.
        settings: of every backbone, for a quick look.
    """
    settings = settings or {}
    with torch.device('meta'):
        whole = {name: build(**kept, **settings) for name, kept in KEPT.items()}
    timed = {name: build(**kept, **settings, depth=depth) for name, kept in KEPT.items()}
    costs: dict[str, Any] = compare_costs(timed, size=latency_size, latency_size=latency_size, rounds=rounds)
    at_timed = {name: row['flops'] for name, row in costs.items()}
    for name, model in whole.items():
        costs[name].update(parameters=count_parameters(model), flops=count_flops(model, SIZE))
        costs[name]['flops_ratio'] = round(costs['teacher']['flops'] / costs[name]['flops'], 3)
        costs[name]['flops_ratio_as_timed'] = round(at_timed['teacher'] / at_timed[name], 3)
    return {
        **costs,
        'how': {
            'command': f'python tools/benchmarks/orion_size.py --latency-size {latency_size} --rounds {rounds} '
            f'--depth {depth}',
            'flops': f'24 blocks, one {SIZE}x{SIZE} image, torch.utils.flop_counter on the meta device, 2 for a '
            'multiply-add',
            'speedup': f'{depth} blocks, one {latency_size}x{latency_size} image in float32, one thread, {rounds} '
            'rounds in turns after a warm-up; ratio of the medians of CPU seconds (speedup_wall: on the clock of a '
            'busy machine)',
            'torch': torch.__version__,
            'cpu': _cpu(),
        },
    }


def _cpu() -> str:
    info = Path('/proc/cpuinfo')
    names = (
        [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor()


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description='Write parameters, operations and CPU speed of EVA-ViT-L.')
    parser.add_argument('--latency-size', type=int, default=LATENCY_SIZE, help='side of the timed image in pixels')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--depth', type=int, default=24, help='blocks of the timed models')
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)

    def body() -> int:
        results = measure(arguments.latency_size, arguments.rounds, arguments.depth)
        write_json(arguments.out, results)
        for name in KEPT:
            row = results[name]
            print(f'{name}: {row["parameters"]:,} parameters, {row["flops"] / 1e9:.1f} GFLOPs, {row["speedup"]:.2f}x')
        print(f'wrote {arguments.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
