"""Marks of students: the teacher's own answers get none, a constant picture gets about 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image
from wan_fixtures import distilled, pipeline

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.distill.distiller import distillation_of
from kdplugin.production import measures
from kdplugin.weights.reading.io import hash_tensors

__all__ = ['pipeline']


def test_a_student_is_examined_by_its_own_teacher(pipeline: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS.build(distilled(pipeline, tmp_path, pairs={}))
    examination = measures.examine(model, count=3)
    assert examination.questions.latents.shape == (3 * measures.ROUNDS, 16, 8, 8)
    assert examination.pictures.shape == (3, 16, 8, 8)
    again = measures.examine(model, count=3)
    assert torch.equal(again.pictures, examination.pictures)
    schedule = distillation_of(model).flow.schedule  # type: ignore[union-attr]
    marks = measures.mark(model, examination, schedule)
    assert marks.loss > 0
    assert marks.error > 0
    assert 0 < measures.constant_error(examination) < 2
    assert measures.teacher_hash(model) == hash_tensors(distillation_of(model).wan.module.state_dict())  # type: ignore[union-attr]


def test_pictures_of_several_makers_are_rows(tmp_path: Path) -> None:
    rows = {'teacher': torch.zeros(3, 16, 2, 2), 'student': torch.ones(3, 16, 2, 2)}
    measures.save_grid(rows, tmp_path / 'out' / 'grid.png', columns=2)
    assert Image.open(tmp_path / 'out' / 'grid.png').size == (2 * 16 + 2, 2 * 16 + 2)


@pytest.mark.parametrize('shift', [0.0, 0.5])
def test_a_constant_is_right_where_all_pictures_are_alike(shift: float) -> None:
    picture = torch.randn(1, 16, 4, 4).expand(3, -1, -1, -1) + shift
    examination = measures.Examination(None, picture, picture, picture, 0.0)  # type: ignore[arg-type]
    assert measures.constant_error(examination) == pytest.approx(0, abs=1e-6)
