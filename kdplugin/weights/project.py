"""From a source and a model to projected weights in one call: plan, apply, report."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.planning import make_plan
from kdplugin.weights.projection.head_counts import Heads
from kdplugin.weights.projection.moments import measure_moments
from kdplugin.weights.reading.checks import require_floating
from kdplugin.weights.reading.io import hash_file, hash_tensors, write_text
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.tensor_source import TensorSource
from kdplugin.weights.reports.picture import save_picture
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.reports.report_text import report_text

AUTO = 'auto'


@dataclass(frozen=True)
class Projection:
    """What a projection made.

    Args:
        report: the plan in numbers, with the errors that were measured.
        tensors: the loaded tensors of the target by name; what the plan leaves out is not among them.
    """

    report: PlanReport
    tensors: dict[str, Tensor]

    def save_records(self, folder: str | Path) -> None:
        """Write plan.json, report.json, report.txt (every tensor) and layers.png into a folder."""
        folder = Path(folder)
        self.report.plan.save(folder / 'plan.json')
        write_text(folder / 'report.json', self.report.to_json() + '\n')
        write_text(folder / 'report.txt', report_text(self.report, every_tensor=True) + '\n')
        save_picture(self.report, folder / 'layers.png')


def plan_for(
    source: TensorSource,
    target: nn.Module,
    *,
    plan: str | Path | ProjectionPlan = AUTO,
    method: str = 'svd',
    layers: str | Sequence[int] = 'uniform',
    heads: Heads = None,
    head_dim: int | None = None,
) -> ProjectionPlan:
    """Make a plan, or take a person's and check that it is for this target.

    Args:
        plan: 'auto' to make one, else a plan or its JSON file.
        method, layers, heads, head_dim: for a made one, see ``make_plan``.

    Raises:
        CheckpointError: the plan is missing or for another target, or the source's tensors are quantised.
    """
    if plan == AUTO:
        made = make_plan(source, target, method=method, layers=layers, heads=heads, head_dim=head_dim)
        thought_of = (name for entry in made.entries for name in (*entry.sources, *entry.alternatives))
        require_floating(source, dict.fromkeys(thought_of))
        return made
    given = plan if isinstance(plan, ProjectionPlan) else ProjectionPlan.load(plan)
    shapes = {name: tuple(value.shape) for name, value in target.state_dict().items()}
    planned = {entry.target: entry.shape for entry in given.entries}
    wrong = [name for name in shapes.keys() | planned.keys() if shapes.get(name) != planned.get(name)]
    if wrong:
        first = min(wrong)
        raise CheckpointError(
            f'Expected a plan for the {len(shapes)} tensors of {type(target).__name__} but {len(wrong)} do not fit, '
            f'such as {first}: {planned.get(first, "absent")} in the plan, {shapes.get(first, "absent")} in the model. '
            'Make the plan for this model with tools/map_weights.py.'
        )
    return given


def report_for(plan: ProjectionPlan, source: TensorSource, errors: Mapping[str, float] | None = None) -> PlanReport:
    """Return the report of a plan, with the shapes of its source."""
    return PlanReport(plan, errors or {}, {name: source.shape(name) for name in source})


def project(
    source: TensorSource | nn.Module,
    target: nn.Module,
    *,
    min_coverage: float = 0.0,
    calibration: Iterable[Any] | None = None,
    **options: Any,
) -> Projection:
    """Plan for a target and make its tensors; neither source nor target is changed.

    Args:
        source: tensors; with ``calibration`` the model itself.
        calibration: batches that the model is called with (tensors, tuples of arguments or dicts of them): bases of
            method 'svd' are then those of its activations instead of its weights, see ``measure_moments``.
        min_coverage: the least share of the target's parameters that has to be loaded, 0 to 1.
        options: as for ``plan_for``.

    Raises:
        CheckpointError: less is covered, nothing is loaded, or the plan does not fit source and target.
        ConfigError: there is calibration but no model to run.
    """
    opened = open_source(source)
    plan = plan_for(opened, target, **options)
    report_for(plan, opened).require(min_coverage)
    moments = None
    if calibration is not None:
        if not isinstance(source, nn.Module):
            raise ConfigError(
                f'Expected a model as source for calibration but got {type(source).__name__} {opened.name}. '
                'Build the model that has these weights and give it instead.'
            )
        moments = measure_moments(source, plan, calibration)
    dtypes = {name: value.dtype for name, value in target.state_dict().items()}
    made = apply_plan(plan, opened, target_dtypes=dtypes, moments=moments)
    return Projection(report_for(plan, opened, made.errors), made.tensors)


@torch.no_grad()
def load_into(target: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Write tensors into a model in place, so that its optimizer keeps them; return the names of those that changed.

    Modules load as they do from a checkpoint: what one computes for itself then (rotary tables) is computed here too.
    """
    own = target.state_dict()
    changed = [name for name, value in tensors.items() if not torch.equal(own[name], value.to(own[name]))]
    state = OrderedDict((name, tensors[name]) for name in changed)
    state._metadata = own._metadata  # type: ignore[attr-defined]  # today's names: nothing to convert
    target.load_state_dict(state, strict=False)
    return changed


def hash_source(what: str | Path, source: TensorSource) -> str:
    """Return the sha256 of a source: of the file itself, or of all tensors of a folder or id."""
    path = Path(what).expanduser()
    return hash_file(path) if path.is_file() else hash_tensors(source)
