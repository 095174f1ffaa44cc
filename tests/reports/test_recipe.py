from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import STUDENT, distilled, make_run, recipe

from kdplugin.reports.recipe import SHOWN, recipe_differences
from kdplugin.reports.run_log import read_run


def differences(
    tmp_path: Path, left: dict[str, Any] | None, right: dict[str, Any] | None, longer: int = 1
) -> list[str]:
    baseline = read_run(make_run(tmp_path / 'a', [40.0], config=left))
    return recipe_differences(baseline, read_run(make_run(tmp_path / 'b', [40.0] * longer, kd=True, config=right)))


def test_a_baseline_and_its_distillation_are_the_same_recipe(tmp_path: Path) -> None:
    assert differences(tmp_path, recipe(), distilled()) == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=800, val_interval=100)),
         'not the same recipe: train_cfg.max_iters is 400 in the baseline, 800 in KD'),
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.2))),
         'not the same recipe: optim_wrapper.optimizer.lr is 0.1 in the baseline, 0.2 in KD'),
        (dict(param_scheduler=[dict(type='PolyLR', power=1.0)]),
         'not the same recipe: param_scheduler[0].power is 0.9 in the baseline, 1.0 in KD'),
        (dict(train_dataloader=dict(batch_size=8, dataset=dict(type='Other'))),
         "not the same recipe: train_dataloader.dataset.type is 'DigitScenes' in the baseline, 'Other' in KD"),
        (dict(randomness=dict(seed=1)), 'not the same recipe: randomness.seed is 0 in the baseline, 1 in KD'),
        (dict(load_from='a.pth'), "not the same recipe: load_from is not set in the baseline, 'a.pth' in KD"),
        (dict(data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 48))),
         'not the same recipe: student model.data_preprocessor.size[0] is 32 in the baseline, 64 in KD'),
    ],
)  # fmt: skip
def test_each_difference_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert differences(tmp_path, recipe(), distilled(**change)) == [message]


def test_another_student_is_another_recipe(tmp_path: Path) -> None:
    config = distilled()
    config['model']['student'] = dict(STUDENT, width=8)
    assert differences(tmp_path, recipe(), config) == [
        'not the same recipe: student model.width is 4 in the baseline, 8 in KD'
    ]


def test_foreign_hooks_count_and_ours_do_not(tmp_path: Path) -> None:
    hooks = [dict(type='kdplugin.DistillationHook'), dict(type='EMAHook')]
    (line,) = differences(tmp_path, recipe(), distilled() | dict(custom_hooks=hooks))
    assert 'custom_hooks is [] in the baseline' in line
    assert 'EMAHook' in line


def test_the_checkpoint_that_a_run_resumed_from_is_no_difference(tmp_path: Path) -> None:
    assert differences(tmp_path, recipe(), distilled(resume=True, load_from='b/iter_100.pth')) == []


def test_many_differences_are_cut_and_counted(tmp_path: Path) -> None:
    loop = {f'option{index}': index for index in range(SHOWN + 3)}
    (line,) = differences(tmp_path, recipe(), distilled(train_cfg=dict(recipe()['train_cfg'], **loop)))
    assert line.endswith(' and 3 more')
    assert line.count('in KD') == SHOWN


def test_an_unequal_budget_and_a_missing_seed_are_told(tmp_path: Path) -> None:
    lines = differences(tmp_path, recipe(randomness=dict()), distilled(randomness=dict()), longer=2)
    assert lines == [
        'not the same budget: the baseline was trained to iteration 100, KD to 200',
        'no seed is set in either run: part of the difference is chance',
    ]
