from __future__ import annotations

import json
from pathlib import Path

import orion_digits

from kdplugin import launch

FILE = Path(__file__).parents[2] / 'docs/results/orion_digits.json'


def test_a_record_of_the_same_inputs_is_not_measured_again(tmp_path: Path) -> None:
    (tmp_path / 'record.json').write_text(json.dumps({'map': 0.5, 'fingerprint': 'a'}))
    assert orion_digits.kept_or_measured(tmp_path, 'a', None) == 0.5


def test_fingerprints_tell_configs_seeds_and_inputs_apart() -> None:
    marks = {
        orion_digits.fingerprint(config, seed, teacher)
        for config in (orion_digits.NO_KD, orion_digits.KD)
        for seed in (0, 1)
        for teacher in ('a', 'b')
    }
    assert len(marks) == 8


def test_students_differ_in_the_teacher_alone() -> None:
    """Same student, data, schedule and start, in both configs."""
    no_kd, kd = (launch.read_config(path) for path in (orion_digits.NO_KD, orion_digits.KD))
    assert kd.model.student.to_dict() == no_kd.model.to_dict()
    for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks', 'randomness'):
        assert kd[key] == no_kd[key], key


def test_the_results_are_lists_by_seed_beside_their_recipe() -> None:
    content = json.loads(FILE.read_text())
    recipe = content.pop('recipe')
    assert content.keys() == {'teacher', 'pruned', *orion_digits.KINDS}
    assert all(0 <= value <= 100 for values in content.values() for value in values)
    assert 'the backbone alone' in recipe
