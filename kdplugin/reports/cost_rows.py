"""The cost rows of a comparison: parameters, megabytes, multiply-adds, latency, seconds per training step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch

from kdplugin.errors import CheckpointError
from kdplugin.reports.model_cost import count_multiply_adds, count_parameters, measure_latency
from kdplugin.reports.plain_model import build_plain_model
from kdplugin.reports.rows import Row
from kdplugin.reports.run_log import RunLog, Validation
from kdplugin.weights.export import student_weights
from kdplugin.weights.reading.io import read_checkpoint

T = TypeVar('T')


def cost_rows(
    runs: Mapping[str, RunLog], selected: Mapping[str, Validation], shape: tuple[int, int] | None
) -> tuple[list[Row], list[str]]:
    """Return the rows, and a note for each number that could not be had.

    Args:
        runs: by name: baseline, kd, perhaps teacher.
        selected: the validation that stands for each; its checkpoint is the one weighed.
        shape: height and width of the input; None leaves multiply-adds and latency out.
    """
    notes: list[str] = []
    models = _each(
        'the model was not built',
        {name: partial(build_plain_model, run.config) for name, run in runs.items()},
        notes,
    )
    sizes = _each(
        'no checkpoint size',
        {name: partial(_checkpoint_megabytes, run, selected[name].step) for name, run in runs.items()},
        notes,
    )
    adds, latency = _measure(models, shape, notes)
    seconds = {name: run.seconds_per_iteration() for name, run in runs.items()}
    return [
        _row('parameters', {name: count_parameters(model) for name, model in models.items()}, 0),
        _row('student weights, MB', {name: size[0] for name, size in sizes.items()}, 2),
        _row('checkpoint file, MB', {name: size[1] for name, size in sizes.items()}, 2),
        _row('multiply-adds, G', adds, 3),
        _row('latency, ms', latency, 1),
        _row('seconds per training step', seconds, 3),
    ], notes


def _row(label: str, values: Mapping[str, float | None], digits: int) -> Row:
    baseline, kd, teacher = (values.get(name) for name in ('baseline', 'kd', 'teacher'))
    return Row(label, baseline, kd, teacher, digits=digits, higher_is_better=False)


def _each(failure: str, tasks: Mapping[str, Callable[[], T]], notes: list[str]) -> dict[str, T]:
    """Return what each task gives; a run's own model can fail in any way: the other numbers stand."""
    results = {}
    for name, task in tasks.items():
        try:
            results[name] = task()
        except Exception as error:  # noqa: PERF203
            notes.append(f'{name}: {failure} ({type(error).__name__}: {error})')
    return results


def _checkpoint_megabytes(run: RunLog, step: int) -> tuple[float, float]:
    """Return the megabytes (1e6 bytes) of the student's tensors and of the whole file saved at ``step``."""
    path = run.checkpoint(step)
    if path is None:
        raise CheckpointError(f'Expected a checkpoint of step {step} in {run.work_dir} but found none. Keep it.')
    weights = student_weights(read_checkpoint(path), str(path))
    return sum(value.nbytes for value in weights.values()) / 1e6, path.stat().st_size / 1e6


def _measure(
    models: Mapping[str, torch.nn.Module], shape: tuple[int, int] | None, notes: list[str]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Measure giga multiply-adds and median milliseconds of the models that run on ``shape``."""
    if shape is None:
        notes.append('multiply-adds and latency not measured: no validation size in the config. Give --shape H W')
        return {}, {}
    images = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    adds = _each(
        f'the model did not run on {shape[0]}x{shape[1]}',
        {name: partial(count_multiply_adds, model, images) for name, model in models.items()},
        notes,
    )
    times = measure_latency({name: models[name] for name in adds}, images)
    if {'baseline', 'kd'} <= times.keys() and repr(models['baseline']) == repr(models['kd']):
        times['baseline'] = times['kd'] = times['baseline'] + times['kd']  # one network: a difference would be noise
    return {name: value / 1e9 for name, value in adds.items()}, {
        name: statistics.median(taken) for name, taken in times.items()
    }
