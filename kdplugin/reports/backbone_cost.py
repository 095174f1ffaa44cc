"""What backbones cost beside each other: parameters, operations, and how much quicker they are on a CPU."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdplugin.reports.model_cost import count_parameters


def count_flops(backbone: nn.Module, size: int) -> int:
    """Return the floating-point operations of one image [1, 3, size, size], by torch's counter on the meta device.

    Convolutions, matrix products and attention; a multiplication and an addition count as two.
    """
    shell = copy.deepcopy(backbone).to('meta').eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shell(torch.empty(1, 3, size, size, device='meta'))
    return int(counter.get_total_flops())


@torch.inference_mode()
def measure_seconds(
    models: Mapping[str, nn.Module], images: Tensor, rounds: int = 5, warm_up: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Time forward passes of several models in turns, so that a slow moment of the machine meets all of them.

    Args:
        models: by name.
        images: [N, 3, H, W], the same for all.
        rounds: passes of each that count.
        warm_up: passes of each before them.

    Returns:
        by name, 'cpu': seconds of the process, 'wall': seconds on the clock; on one thread of an idle core the same.
    """
    for model in models.values():
        model.eval()
        for _ in range(warm_up):
            model(images)
    taken: dict[str, dict[str, list[float]]] = {name: {'cpu': [], 'wall': []} for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            model(images)
            taken[name]['cpu'].append(time.process_time() - cpu)
            taken[name]['wall'].append(time.perf_counter() - wall)
    return taken


def compare_costs(
    models: Mapping[str, nn.Module], *, size: int, latency_size: int, rounds: int = 5
) -> dict[str, dict[str, Any]]:
    """Return parameters, operations and speed of backbones; the first one is what the others are held against.

    Latency is taken on one thread, in seconds of the process, which do not count the time that other programs take.

    Args:
        models: by name, on the CPU.
        size: pixels of the image whose operations are counted.
        latency_size: pixels of the image that is timed.
        rounds: passes of each model.

    Returns:
        by name: parameters, flops, speedup (medians of CPU seconds), speedup_wall, cpu_seconds, wall_seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = measure_seconds(models, torch.rand(1, 3, latency_size, latency_size), rounds)
    finally:
        torch.set_num_threads(threads)
    medians = {
        name: {clock: statistics.median(values) for clock, values in seconds.items()} for name, seconds in taken.items()
    }
    first = next(iter(medians.values()))
    return {
        name: dict(
            parameters=count_parameters(model),
            flops=count_flops(model, size),
            speedup=round(first['cpu'] / medians[name]['cpu'], 3),
            speedup_wall=round(first['wall'] / medians[name]['wall'], 3),
            cpu_seconds=[round(value, 3) for value in taken[name]['cpu']],
            wall_seconds=[round(value, 3) for value in taken[name]['wall']],
        )
        for name, model in models.items()
    }
