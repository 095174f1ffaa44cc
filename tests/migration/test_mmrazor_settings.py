from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from kdplugin.errors import ConfigError
from kdplugin.migration.mmrazor_settings import runner_settings, stop_epoch
from kdplugin.migration.notes import Note

VAL = dict(type='mmrazor.SingleTeacherDistillValLoop')
STOP = dict(type='mmrazor.StopDistillHook', stop_epoch=3)
DRAW = dict(_scope_='mmrazor', type='RazorVisualizationHook', enabled=True)


def settings(base: dict[str, Any] | None = None, **config: Any) -> tuple[dict[str, Any], list[Note]]:
    notes: list[Note] = []
    return runner_settings(Config(config), base, notes), notes


def test_validation_is_of_the_student() -> None:
    found, notes = settings(val_cfg=dict(**VAL, fp16=True), train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2))
    assert found == dict(
        val_cfg=dict(type='ValLoop', fp16=True), train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2)
    )
    assert [(note.kind, note.where) for note in notes] == [('changed', 'val_cfg')]


def test_a_loop_of_another_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r'Expected a loop of mmengine in train_cfg but got mmrazor\.DartsEpochBased'):
        settings(train_cfg=dict(type='mmrazor.DartsEpochBasedTrainLoop'))


def test_mmrazors_hooks_go_and_the_recipes_own_stand_in() -> None:
    hooks = dict(visualization=DRAW, extra=DRAW, timer=dict(type='IterTimerHook'))
    base = dict(default_hooks=dict(visualization=dict(type='DetVisualizationHook')))
    found, notes = settings(base, default_hooks=hooks, custom_hooks=[STOP, dict(type='EMAHook')])
    assert found['default_hooks'] == dict(
        visualization=dict(type='DetVisualizationHook'), timer=dict(type='IterTimerHook')
    )
    assert found['custom_hooks'] == [dict(type='EMAHook')]
    assert [(note.kind, note.where) for note in notes] == [
        ('left out', 'default_hooks.visualization'),
        ('left out', 'default_hooks.extra'),
        ('converted', 'custom_hooks'),
    ]
    assert 'StopDistillHook(stop_epoch=3) is stop_after with by_epoch' in notes[-1].message


def test_hooks_without_a_counterpart_are_named() -> None:
    found, notes = settings(custom_hooks=[dict(type='mmrazor.DMCPSubnetHook')])
    assert found['custom_hooks'] == []
    assert notes == [Note('no counterpart', 'custom_hooks', 'DMCPSubnetHook is a hook of MMRazor.')]


def test_what_nobody_reads_is_named() -> None:
    found, notes = settings(
        dict(data_root='x'), find_unused_parameters=True, optimizer_config={}, teacher_ckpt='a', data_root='x'
    )
    assert found == {}
    assert [note.where for note in notes] == ['find_unused_parameters', 'optimizer_config', 'teacher_ckpt']
    assert {note.kind for note in notes} == {'left out'}


def test_where_distillation_stops() -> None:
    assert stop_epoch(Config(dict(default_hooks=dict(stop=STOP), custom_hooks=[]))) == 3
    assert stop_epoch(Config(dict(custom_hooks=[dict(type='EMAHook'), STOP]))) == 3
    assert stop_epoch(Config(dict(default_hooks=dict(logger=None)))) is None
