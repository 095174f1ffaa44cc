"""The benchmark of scorers, on an untrained tiny detector."""

from __future__ import annotations

import json
from pathlib import Path

import pruning_scorers
import pytest
import torch
from engine_fixtures import shared as shared
from pruning_configs import pruning_teacher
from pruning_scorers import Tester

from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning_run.subject import open_subject


@pytest.mark.slow
def test_a_small_run(shared: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / 'scorers.json', tmp_path / 'scorers.png'
    words = ['--scorers', 'taylor', 'random', '--seeds', '0', '--batches', '1', '--batch-size', '2', '--compensate']
    places = ['--out', str(out), '--picture', str(picture), '--work-dir', str(tmp_path / 'run')]
    assert pruning_scorers.main([*pruning_teacher(shared), *words, *places]) == 0
    content = json.loads(out.read_text())
    assert [(row['scorer'], row['pruned'], len(row['heads'][0])) for row in content['rows']] == [
        (scorer, share, kept) for scorer in ('taylor', 'random') for share, kept in ((0.25, 3), (0.5, 2), (0.75, 1))
    ]
    assert all(row['sliced'] is not None and row['compensated'] is not None for row in content['rows'])
    assert picture.is_file()


def test_the_tested_backbone_is_the_pruned_one(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = open_subject(*pruning_teacher(shared))
    whole, seen = subject.backbone, []

    class Runner:
        def test(self) -> dict[str, float]:
            seen.append(self.model.backbone)
            return {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5}

    tester = Tester(subject, Runner())  # type: ignore[arg-type]
    plan = PruningPlan.whole(2, 4, 85, 8, 'backbone.').replaced(heads=((0, 1), (2, 3)))
    assert tester.score_plan(plan) == tester.score_plan(plan) == 0.25
    assert len(seen) == 1
    assert torch.equal(seen[0].blocks[1].attn.q_bias, whole.blocks[1].attn.q_bias[16:])
    assert subject.backbone is whole
