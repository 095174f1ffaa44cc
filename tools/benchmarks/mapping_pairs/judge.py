"""What a mapper got right: its plan or 1:1 mapping applied, and compared with the truth tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.weights.plan import ProjectionPlan
from mapping_pairs.base import Case, State

WAYS = ('inputs', 'modules', 'state dict', 'untrained')
"""How a mapper can be asked: with both models and an input, with both models, with a bare state dict, and with an
untrained source whose constants say nothing, for a plan that is applied to the trained one later."""


def carry_out(case: Case, answer: ProjectionPlan | Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors that a plan or a {source name: target name} mapping gives the target, and what it refuses.

    A mapping moves whole tensors; one whose shape is not the target's is left out, as a load would.
    """
    if isinstance(answer, ProjectionPlan):
        from kdplugin.weights.apply import apply_plan

        refused = [entry.target for entry in answer.entries if entry.kind == 'refused']
        return dict(apply_plan(answer, case.state).tensors), refused
    shapes = {name: value.shape for name, value in case.own.items()}
    moved = {target: case.state[source] for source, target in answer.items() if source in case.state}
    return {name: value for name, value in moved.items() if shapes.get(name) == value.shape}, []


def equal(value: Tensor, true: Tensor) -> bool:
    """Tell whether a tensor is the true one, bit by bit but for free values."""
    if value.shape != true.shape or value.dtype != true.dtype:
        return False
    return torch.equal(value, torch.where(true.isnan(), value, true))


def score(case: Case, applied: State, refused: Collection[str] = (), bare: bool = False) -> dict[str, Any]:
    """Count the target's tensors that have a true source: right ones, and the names of those that are not.

    Right is the true value, exactly, or a refusal by name where the permutation cannot be known.
    """
    verdict: dict[str, Any] = {'tensors': len(case.truth), 'right': 0, 'wrong': [], 'refused': [], 'missing': []}
    for name, true in case.truth.items():
        if name in applied:
            value = applied[name]
            place = 'right' if equal(value, true) else 'wrong'
        elif name in refused:
            place = 'right' if case.pair.may_refuse(name, bare) else 'refused'
        else:
            place = 'missing'
        if place == 'right':
            verdict['right'] += 1
        else:
            verdict[place].append(name)
    verdict['permitted_refusals'] = [n for n in refused if n in case.truth and case.pair.may_refuse(n, bare)]
    verdict['without_source'] = [name for name in applied if name not in case.truth]
    return verdict


def judge(case: Case, find: Callable[[], ProjectionPlan | Mapping[str, str]], bare: bool = False) -> dict[str, Any]:
    """Score a mapper's answer, with its seconds and the largest output difference.

    ``unknown_names`` are names of its 1:1 mapping that the source's state dict does not have, ``changed`` what
    it did to the models.
    ``difference_given_refused`` is the difference when a person has settled the permitted refusals.
    """
    start = time.perf_counter()
    answer = find()
    seconds = time.perf_counter() - start
    applied, refused = carry_out(case, answer)
    verdict = score(case, applied, refused, bare)
    verdict['seconds'] = round(seconds, 3)
    whole = answer.mapping if isinstance(answer, ProjectionPlan) else answer
    verdict['unknown_names'] = [name for name in whole if name not in case.state]
    verdict['changed'] = [name for name, value in case.fingerprint().items() if value != case.before[name]]
    fits = {name: value for name, value in applied.items() if name in case.own}
    verdict['max_output_difference'] = case.difference(fits)
    settled = {name: case.truth[name] for name in verdict['permitted_refusals']}
    verdict['difference_given_refused'] = case.difference({**fits, **settled})
    return verdict


def plan_of(case: Case, way: str, untrained: nn.Module | None = None) -> ProjectionPlan:
    """Ask kdplugin's mapper in one of ``WAYS``."""
    from kdplugin.weights.mapper import WeightMapper

    if way == 'state dict':
        mapper = WeightMapper.from_state_dict(case.state, case.target)
    elif way == 'untrained':
        mapper = WeightMapper(untrained, case.target)
    else:
        mapper = WeightMapper(case.source, case.target, dummy_input=case.inputs if way == 'inputs' else None)
    mapper.suggest_mapping()
    return mapper.plan
