from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from preflight_says import places, says

from kdplugin.preflight.config_keys import (
    check_containers,
    check_leftovers,
    check_loops,
    check_near_names,
    check_old_keys,
    check_razor_keys,
)
from kdplugin.preflight.findings import Findings

LOOP = dict(train_dataloader=dict(dataset={}), train_cfg={}, optim_wrapper=dict(optimizer={}))
VALIDATION = dict(val_dataloader=dict(dataset={}), val_cfg={}, val_evaluator={})


def test_containers() -> None:
    assert says(check_containers, dict(**LOOP, resume=True, load_from=None, custom_hooks=[])) == []
    assert says(check_containers, dict(custom_hooks=dict(type='EMAHook'))) == [
        (
            'error',
            'custom_hooks',
            "Expected custom_hooks to be a list but got ConfigDict {'type': 'EMAHook'}. Write a list.",
        )
    ]
    assert places(check_containers, dict(train_cfg=[1])) == [('error', 'train_cfg')]
    assert places(check_containers, dict(optim_wrapper=dict(optimizer='SGD'))) == [('error', 'optim_wrapper.optimizer')]


@pytest.mark.parametrize(
    ('key', 'near'),
    [('optim_wraper', 'optim_wrapper'), ('custom_hook', 'custom_hooks'), ('train_dataloder', 'train_dataloader')],
)
def test_misspelt_keys(key: str, near: str) -> None:
    (finding,) = says(check_near_names, {key: dict(a=1)})
    assert finding[:2] == ('error', key)
    assert f'Did you mean {near!r}?' in finding[2]


@pytest.mark.parametrize(
    'key',
    ['train_pipeline', 'train_dataset', 'test_cfgs', 'model_cfg', 'model_test_cfg', 'val_data', 'models', 'resumes_x'],
)
def test_variables_of_a_config_are_its_own_affair(key: str) -> None:
    assert says(check_near_names, {**LOOP, 'model': {}, key: dict(a=1)}) == []


def test_loops_are_whole() -> None:
    assert says(check_loops, {**LOOP, **VALIDATION}) == []
    assert places(check_loops, {**LOOP, **VALIDATION, 'val_evaluator': None}) == [('error', 'val_evaluator')]
    assert places(check_loops, LOOP) == [('warning', 'val_cfg')]
    assert places(check_loops, VALIDATION) == [('error', 'train_cfg')]


def test_keys_of_mmdet_2() -> None:
    old = dict(lr_config=dict(policy='step'), data=dict(samples_per_gpu=2), optimizer=dict(type='SGD'), fp16={})
    assert [where for _, where in places(check_old_keys, old)] == ['data', 'lr_config', 'optimizer', 'fp16']
    today = dict(optimizer=dict(type='SGD'), optim_wrapper=dict(optimizer={}), data='a', seed=3)
    assert says(check_old_keys, today) == []


def test_mmrazor_is_sent_to_its_migration() -> None:
    model: dict[str, Any] = dict(type='mmrazor.SingleTeacherDistill', architecture={}, distiller={})
    found = says(check_razor_keys, dict(model=model))
    assert [where for _, where, _ in found] == ['model.type', 'model.architecture', 'model.distiller']
    assert all('tools/migrate_mmrazor.py' in message for _, _, message in found)
    model = dict(type='kdplugin.Distiller', pairs=dict(a=dict(tap='x', recorder='y')))
    assert places(check_razor_keys, dict(model=model)) == [('error', 'model.pairs.a.recorder')]


def test_what_was_inherited_is_not_left_over() -> None:
    student = dict(type='GFL', backbone={}, data_preprocessor={})
    model = dict(type='kdplugin.Distiller', student=student, data_preprocessor={})
    assert says(check_leftovers, dict(model=model)) == []
    (finding,) = says(check_leftovers, dict(model=dict(model, backbone={})))
    assert "got ['backbone'] of the inherited model" in finding[2]
    assert '_delete_=True' in finding[2]
    nested = says(check_leftovers, dict(model=dict(type='kdplugin.Distiller', student=model)))
    assert any(where == 'model.student' and '_base_.model.student' in message for _, where, message in nested)


@pytest.mark.parametrize('kind', ['mmrazor.ChannelWiseDivergence', 'ChannelWiseDivergence', 'KLDivergence'])
def test_losses_of_mmrazor_are_sent_there_too(kind: str) -> None:
    model = dict(type='kdplugin.Distiller', pairs=dict(a=dict(tap='x', loss=dict(type=kind))))
    ((_, where, message),) = says(check_razor_keys, dict(model=model))
    assert where == 'model.pairs.a.loss.type'
    assert 'tools/migrate_mmrazor.py' in message


def test_velocities_have_no_metric() -> None:
    training = dict(train_dataloader={}, train_cfg={}, optim_wrapper={})
    assert places(check_loops, dict(training, model=dict(type='GFL'))) == [('warning', 'val_cfg')]
    assert places(check_loops, dict(training, model=dict(type='kdplugin.DiffusionDistiller'))) == []


def test_a_teacher_of_mmdets_own_is_none_of_mmrazor() -> None:
    assert says(check_razor_keys, dict(model=dict(type='LAD', teacher_ckpt='a.pth'))) == []
    assert places(check_razor_keys, dict(model=dict(type='kdplugin.Distiller', teacher_ckpt='a.pth'))) == [
        ('error', 'model.teacher_ckpt')
    ]


def test_what_a_distillation_is_given_besides_is_meant_for_its_student(tmp_path: Path) -> None:
    for kind, cure in (('kdplugin.Distiller', r'model=dict(student=dict(neck=...))'), ('GFL', '_delete_=True')):
        (tmp_path / 'base.py').write_text(f"model = dict(type='{kind}', student=dict(type='GFL', neck=dict()))\n")
        (tmp_path / 'child.py').write_text(
            "_base_ = ['./base.py']\nmodel = dict(type='kdplugin.Distiller', neck=dict(num_outs=5))\n"
        )
        found = Findings()
        assert check_leftovers(found, Config.fromfile(str(tmp_path / 'child.py')))
        assert cure in found[0].message
