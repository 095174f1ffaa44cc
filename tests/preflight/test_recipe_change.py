from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.recipe_change import check_recipe, differences, recipe_of

RECIPE = """
model = dict(type='GFL', backbone=dict(type='ResNet', depth=18))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
param_scheduler = [dict(type='PolyLR', end=10)]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[dict(type='RandomFlip', prob=0.5)]))
"""
KD = """
_base_ = ['./recipe.py']
model = dict(_delete_=True, type='kdplugin.Distiller', student=_base_.model)
"""


def write(folder: Path, more: str = '') -> str:
    (folder / 'recipe.py').write_text(RECIPE)
    (folder / 'kd.py').write_text(KD + more)
    return str(folder / 'kd.py')


def changes(file: str) -> list[tuple[str, str]]:
    found = Findings()
    check_recipe(found, Config.fromfile(file))
    return [(one.level, one.where) for one in found]


def test_the_recipe_is_the_plain_config_that_is_inherited(tmp_path: Path) -> None:
    file = write(tmp_path)
    recipe = recipe_of(file)
    assert recipe is not None
    assert Path(recipe.filename).name == 'recipe.py'
    (tmp_path / 'second.py').write_text("_base_ = ['./kd.py']\n")
    again = recipe_of(str(tmp_path / 'second.py'))
    assert again is not None
    assert Path(again.filename).name == 'recipe.py'
    assert recipe_of(None) is None
    assert recipe_of(str(tmp_path / 'recipe.py')) is None


def test_an_untouched_recipe_is_no_finding(tmp_path: Path) -> None:
    assert changes(write(tmp_path)) == []


def test_rate_schedule_data_and_model_are_warned_of_and_the_rest_is_told(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'optim_wrapper = dict(optimizer=dict(lr=0.02), accumulative_counts=2)\n'
        "param_scheduler = [dict(type='PolyLR', end=20)]\n"
        'train_dataloader = dict(batch_size=4, dataset=dict(pipeline=[]))\n',
    )
    assert changes(file) == [
        ('warning', 'optim_wrapper.optimizer.lr'),
        ('note', 'optim_wrapper.accumulative_counts'),
        ('warning', 'param_scheduler.0.end'),
        ('warning', 'train_dataloader.batch_size'),
        ('warning', 'train_dataloader.dataset.pipeline'),
    ]


def test_a_config_that_inherits_nothing_is_said_to_be_unchecked() -> None:
    found = Findings()
    check_recipe(found, Config(dict(model=dict(type='kdplugin.Distiller', student={}))))
    assert [(one.level, one.where) for one in found] == [('note', '_base_')]


def test_differences_are_told_by_their_paths() -> None:
    assert list(differences(dict(a=[1, dict(b=2)], c=1), dict(a=[1, dict(b=3)], d=1), 'x')) == [
        ('x.a.1.b', 2, 3), ('x.d', None, 1), ('x.c', 1, None),
    ]  # fmt: skip
    assert list(differences([1], [1, 2], 'x')) == [('x', [1], [1, 2])]


def test_a_change_that_is_called_a_fault_is_not_told_as_another_recipe(tmp_path: Path) -> None:
    config = Config.fromfile(write(tmp_path, "optim_wrapper = dict(optimizer=dict(lr=9.0))\nload_from = 'a.pth'\n"))
    found = Findings()
    found.warning('optim_wrapper.optimizer.lr', 'Expected a rate up to 1 but got 9. Correct lr.')
    check_recipe(found, config)
    assert [(one.level, one.where) for one in found[1:]] == [('note', 'load_from')]
