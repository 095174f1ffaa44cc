from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL, build, distilled, segmentation_batch

from kdplugin.distill.distiller import distillation_of
from kdplugin.preflight.balance import check_balance, check_counted_once
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.step import Step, run_step

PAIRS: dict[str, Any] = dict(
    mid=dict(tap='backbone.layer2', loss=COSINE, weight=0.5), logits=dict(tap='decode_head.conv_seg', loss=KL)
)


@pytest.mark.parametrize(
    ('weight', 'cure'),
    [(0.5, ''), (1e5, 'Lower the weight'), (1e-6, 'Raise the weight')],
    ids=['fits', 'drowns', 'lost'],
)
def test_a_term_is_of_the_size_of_the_task(shared: Path, weight: float, cure: str) -> None:
    pairs = copy.deepcopy(PAIRS)
    pairs['mid']['weight'] = weight
    student = build(distilled(shared, pairs))
    distillation = distillation_of(student)
    found, step = Findings(), run_step(student, distillation, segmentation_batch())
    check_balance(found, step, distillation)
    assert [(one.level, one.where) for one in found] == ([('warning', 'model.pairs.mid.weight')] if cure else [])
    if cure:
        assert cure in found[0].message
        task = sum(value for name, value in step.terms.items() if 'kd_' not in name)
        advised = float(found[0].message.split('the weight (')[1].split(' ')[0])
        assert advised * step.terms['loss_kd_mid'] / weight == pytest.approx(task, rel=0.01)


def step_of(**losses: Any) -> Step:
    return Step({name: torch.as_tensor(value) for name, value in losses.items()}, {}, torch.zeros(()), frozenset())


def test_no_loss_is_counted_twice() -> None:
    found = Findings()
    check_counted_once(found, step_of(loss_cls=1.0, loss_box=2.0, acc=3.0, loss_kd_a=3.0))
    check_counted_once(found, step_of(loss_cls=1.0, loss_box=1.0))
    assert found == []
    check_counted_once(found, step_of(loss_cls=1.0, loss_box=2.0, loss_both=3.0))
    assert 'loss_both is the sum of others' in found.errors[0].message
    named = Findings()
    check_counted_once(named, step_of(loss_cls=1.0, total_loss=7.0))
    check_counted_once(named, step_of(loss=1.0))
    assert [one.level for one in named] == ['error', 'warning']
