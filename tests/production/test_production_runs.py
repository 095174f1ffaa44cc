"""Small helpers of the runs; whole runs are in test_production_test.py and tests/distill/diffusion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from wan_fixtures import asked, same_size_student

from kdplugin.production import runs


def test_a_student_with_other_weights_answers_as_the_other() -> None:
    one, other = same_size_student(), same_size_student()
    with torch.no_grad():
        other.proj_out.bias += 1
    made = runs.with_weights(one, other.state_dict())
    assert runs.outputs_hash(made, *asked()) == runs.outputs_hash(other, *asked())
    assert runs.outputs_hash(made, *asked()) != runs.outputs_hash(one, *asked())
    assert runs.weights_hash(made) == runs.weights_hash(other)


def test_a_saved_student_is_read_from_its_work_dir(tmp_path: Path) -> None:
    student = same_size_student()
    student.save_pretrained(tmp_path / 'student')
    assert runs.weights_hash(runs.reload(tmp_path)) == runs.weights_hash(student)


def test_a_run_is_stopped_behind_its_iteration() -> None:
    hook = runs.StopAfter(3)
    hook.after_train_iter(SimpleNamespace(iter=1), 1)  # type: ignore[arg-type]
    with pytest.raises(runs._Stopped):
        hook.after_train_iter(SimpleNamespace(iter=2), 2)  # type: ignore[arg-type]


def test_the_weights_at_the_start_are_kept() -> None:
    student, hook = same_size_student(), runs.KeepStart()
    hook.before_train(SimpleNamespace(model=student))  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in hook.weights.items()}
    with torch.no_grad():
        student.proj_out.bias += 1
    assert all(torch.equal(hook.weights[name], value) for name, value in before.items())
    assert not torch.equal(student.proj_out.bias, before['proj_out.bias'])
