"""A student that starts from the slices that a pruning plan keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, Detector, StandIn, stirred
from mmengine.logging import MMLogger

from kdplugin.errors import CheckpointError
from kdplugin.hooks.weight_projection_hook import WeightProjectionHook
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.weights.plan import ProjectionPlan

PLAN = PruningPlan(
    ((0, 3), (1,), (0, 1, 2)), (tuple(range(0, 20, 2)), (1, 2, 3), tuple(range(20))), HEADS, HIDDEN, HEAD_DIM,
    'img_backbone.',
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A teacher whose backbone has another name than the student's, and the plan."""
    teacher = stirred(Detector()).state_dict()
    renamed = {name.replace('backbone.', 'img_backbone.'): value for name, value in teacher.items()}
    torch.save({'state_dict': renamed}, tmp_path / 'teacher.pth')
    PLAN.write(tmp_path / 'plan.json')
    return dict(source=str(tmp_path / 'teacher.pth'), plan=str(tmp_path / 'plan.json'))


@pytest.mark.parametrize('prefix', [None, 'img_backbone.'])
def test_the_student_gets_the_slices(files: dict[str, str], tmp_path: Path, prefix: str | None) -> None:
    hook = WeightProjectionHook(**files, prefix=prefix, min_coverage=1.0)
    student = Detector(StandIn(PLAN.head_counts, PLAN.neuron_counts))
    head = student.head.weight.clone()
    logger = MMLogger.get_instance('pruning', log_level='ERROR')
    hook.before_train(SimpleNamespace(model=student, logger=logger, work_dir=str(tmp_path / 'run'), hooks=[]))
    expected = prune_state(PLAN, files['source'])
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(value, expected[f'img_backbone.{name}']), name
    assert torch.equal(student.head.weight, head)
    kept = ProjectionPlan.load(tmp_path / 'run' / 'weight_projection' / 'plan.json')
    assert kept['blocks.1.attn.q_bias'].operation == 'index(0, [6, 7, 8, 9, 10, 11])'


def test_the_plan_in_numbers(files: dict[str, str]) -> None:
    report = WeightProjectionHook(**files).plan(Detector(StandIn(PLAN.head_counts, PLAN.neuron_counts)))
    assert report.coverage == {'tensors': 1.0, 'parameters': 1.0}


def test_a_student_of_another_size_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match=r'by the plan, but the model has \(24,\). Build the model with the plan'):
        WeightProjectionHook(**files).plan(Detector(StandIn((HEADS,) * DEPTH)))
