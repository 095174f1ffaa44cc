from __future__ import annotations

from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import loader, places

from kdplugin.preflight.loaders import check_loaders

EPOCHS = dict(by_epoch=True, max_epochs=1)


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def test_a_good_validation_loader_is_no_finding() -> None:
    assert places(check_loaders, dict(val_dataloader=loader())) == []


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(batch_size=0), ('error', 'val_dataloader.batch_size')),
        (dict(batch_size=None), ('error', 'val_dataloader.batch_size')),
        (dict(num_workers=True), ('error', 'val_dataloader.num_workers')),
        (dict(persistent_workers=True), ('error', 'val_dataloader.persistent_workers')),
        (dict(prefetch_factor=2), ('error', 'val_dataloader.prefetch_factor')),
        (dict(sampler=dict(type='InfiniteSampler')), ('error', 'val_dataloader.sampler')),
        (dict(sampler=dict(type='DefaultSampler', shuffle=True)), ('warning', 'val_dataloader.sampler.shuffle')),
    ],
)
def test_mistakes_of_a_loader(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert places(check_loaders, dict(val_dataloader={**loader(), **changes})) == [expected]


def test_what_is_missing() -> None:
    bare = {key: value for key, value in loader().items() if key not in ('dataset', 'sampler')}
    assert places(check_loaders, dict(val_dataloader=bare)) == [('error', 'val_dataloader.dataset')]
    assert places(check_loaders, dict(val_dataloader=dict(bare, dataset={}))) == [('error', 'val_dataloader.sampler')]


def test_an_endless_sampler_goes_with_iterations_alone() -> None:
    endless = loader(sampler='InfiniteSampler')
    endless['sampler']['shuffle'] = True
    assert places(check_loaders, dict(train_dataloader=endless, train_cfg=dict(by_epoch=False, max_iters=5))) == []
    assert places(check_loaders, dict(train_dataloader=endless, train_cfg=EPOCHS)) == [
        ('error', 'train_dataloader.sampler')
    ]
    assert places(check_loaders, dict(train_dataloader=loader())) == [('warning', 'train_dataloader.sampler.shuffle')]


def test_training_and_validation_are_apart() -> None:
    train, val = loader(), loader()
    train['sampler']['shuffle'] = True
    train['dataset']['data_prefix'] = val['dataset']['data_prefix'] = dict(img_path='train')
    both = dict(train_dataloader=train, val_dataloader=val)
    assert places(check_loaders, both) == [('warning', 'val_dataloader.dataset')]
    val['dataset'] = dict(val['dataset'], data_prefix=dict(img_path='val'))
    assert places(check_loaders, both) == []
