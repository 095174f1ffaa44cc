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


def test_a_sampler_has_a_type() -> None:
    assert places(check_loaders, dict(val_dataloader=dict(loader(), sampler=dict(shuffle=False)))) == [
        ('error', 'val_dataloader.sampler.type')
    ]


@pytest.mark.parametrize(('train', 'val', 'expected'), [('val', 'train', 1), ('train', 'val', 0), ('test', 'val', 0)])
def test_training_does_not_read_the_validation_while_that_reads_it(train: str, val: str, expected: int) -> None:
    both = dict(train_dataloader=loader(), val_dataloader=loader())
    both['train_dataloader']['sampler']['shuffle'] = True
    for name, split in (('train_dataloader', train), ('val_dataloader', val)):
        both[name]['dataset'] = dict(both[name]['dataset'], ann_file=f'{split}.txt', data_prefix=dict(img_path=split))
    found = places(check_loaders, both)
    assert found == [('warning', f'train_dataloader.dataset.{key}') for key in ('ann_file', 'data_prefix')] * expected


def test_mmdet_leaves_images_out_unless_it_tests() -> None:
    init_default_scope('mmdet')

    def of(train: bool, val: bool) -> list[tuple[str, str]]:
        both: dict[str, Any] = dict(default_scope='mmdet', train_dataloader=loader(), val_dataloader=loader())
        both['train_dataloader']['sampler']['shuffle'] = True
        for name, mode in (('train_dataloader', train), ('val_dataloader', val)):
            both[name]['dataset'] = dict(type='CocoDataset', ann_file=f'{name}.json', test_mode=mode)
        return places(check_loaders, both)

    assert of(train=False, val=True) == []
    assert of(train=True, val=False) == [
        ('warning', 'train_dataloader.dataset.test_mode'), ('warning', 'val_dataloader.dataset.test_mode')
    ]  # fmt: skip


def test_a_validation_sees_every_image() -> None:
    assert places(check_loaders, dict(val_dataloader={**loader(), 'drop_last': True})) == [
        ('warning', 'val_dataloader.drop_last')
    ]
    assert places(check_loaders, dict(val_dataloader={**loader(), 'drop_last': False})) == []


def test_epochs_are_shuffled_anew() -> None:
    assert places(check_loaders, dict(val_dataloader={**loader(), 'sampler': None})) == [
        ('error', 'val_dataloader.sampler')
    ]
    off = dict(default_hooks=dict(sampler_seed=None))
    assert places(check_loaders, dict(off, train_cfg=EPOCHS)) == [('warning', 'default_hooks.sampler_seed')]
    assert places(check_loaders, dict(off, train_cfg=dict(type='IterBasedTrainLoop', max_iters=9))) == []
    assert places(check_loaders, dict(default_hooks=dict(timer=None), train_cfg=EPOCHS)) == []
