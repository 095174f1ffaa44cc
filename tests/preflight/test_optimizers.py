from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_fixtures import build, segmentor
from mmengine.config import Config
from torch import nn

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.optimizers import (
    check_optimizer_builds,
    check_space,
    checkpoint_bytes,
    checkpoints_to_come,
    gigabytes,
)

SGD = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)


@pytest.fixture(scope='module')
def student() -> nn.Module:
    return build(segmentor(), initialise=False)


def built(student: nn.Module, frozen: tuple[str, ...] = (), **wrapper: Any) -> list[tuple[str, str]]:
    found = Findings()
    settings = dict(type='OptimWrapper', optimizer=SGD)
    check_optimizer_builds(found, Config(dict(optim_wrapper={**settings, **wrapper})), student, frozen)
    return [(one.level, one.where) for one in found]


def test_a_good_optimizer_is_no_finding(student: nn.Module) -> None:
    assert built(student, paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))) == []
    assert built(student, type='AmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16') == []


def test_custom_keys_name_parameters_that_are_trained(student: nn.Module) -> None:
    keys = dict(custom_keys=dict(backbone=dict(lr_mult=0.1), bacbone=dict(lr_mult=0.1)))
    where = 'optim_wrapper.paramwise_cfg.custom_keys'
    assert built(student, paramwise_cfg=keys) == [('warning', f'{where}.bacbone')]
    assert built(student, frozen=('backbone',), paramwise_cfg=keys) == [
        ('warning', f'{where}.backbone'),
        ('warning', f'{where}.bacbone'),
    ]


def test_what_does_not_build_is_an_error(student: nn.Module) -> None:
    plain = {key: value for key, value in SGD.items() if key != 'weight_decay'}
    assert built(student, optimizer=plain, paramwise_cfg=dict(norm_decay_mult=0.0)) == [('error', 'optim_wrapper')]


def test_a_rate_of_nothing_is_told(student: nn.Module) -> None:
    assert built(student, paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.0)))) == [
        ('note', 'optim_wrapper')
    ]


def test_a_checkpoint_has_weights_states_and_averages() -> None:
    model = nn.Linear(10, 9)
    config = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW'))))
    assert checkpoint_bytes(config, model) == 4 * 99 * 3
    config.custom_hooks = [dict(type='EMAHook')]
    assert checkpoint_bytes(config, model) == 4 * 99 * 4
    model.requires_grad_(False)
    config.optim_wrapper.optimizer.type = 'SGD'
    assert checkpoint_bytes(config, model) == 4 * 99 * 2


@pytest.mark.parametrize(
    ('hook', 'number'),
    [
        (dict(interval=1, max_keep_ckpts=3), 4),
        (dict(interval=1, max_keep_ckpts=3, save_best='mIoU'), 5),
        (dict(interval=2), 7),
        (dict(interval=-1), None),
    ],
)
def test_checkpoints_are_counted(hook: dict[str, Any], number: int | None) -> None:
    hooks = dict(checkpoint=dict(type='CheckpointHook', **hook))
    assert (
        checkpoints_to_come(Config(dict(train_cfg=dict(by_epoch=True, max_epochs=12), default_hooks=hooks))) == number
    )


def test_a_full_disk_is_an_error(student: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(
        dict(
            work_dir=str(tmp_path / 'to' / 'come'), train_cfg=dict(by_epoch=True, max_epochs=2),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        )
    )  # fmt: skip
    needed = 3 * checkpoint_bytes(config, student)
    for free, level in ((needed, 'note'), (needed - 1, 'error')):
        monkeypatch.setattr('shutil.disk_usage', lambda _, free=free: SimpleNamespace(free=free))
        found = Findings()
        check_space(found, config, student)
        assert [one.level for one in found] == [level]
    assert 'Expected room for 3 checkpoints' in found[0].message
    assert gigabytes(1_240_000_000) == '1.2 GB'


def test_adapters_are_named_before_they_are_made(student: nn.Module) -> None:
    assert built(student, paramwise_cfg=dict(custom_keys={'_kd': dict(lr_mult=10)})) == []
    assert built(student, paramwise_cfg=dict(custom_keys={'_kd.mid': dict(lr_mult=0.0)})) == [
        ('warning', 'optim_wrapper.paramwise_cfg.custom_keys._kd.mid')
    ]
