from __future__ import annotations

from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import says

from kdplugin.preflight.dataset_keys import check_dataset_keys


def data(kind: str = 'mmdet.CocoDataset', **settings: Any) -> dict[str, Any]:
    return dict(train_dataloader=dict(dataset=dict(type=kind, **settings)))


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


@pytest.mark.parametrize(
    'config',
    [
        data(metainfo=dict(classes=('a',), palette=[(1, 2, 3)], dataset_type='mine'), data_prefix=dict(img='train/')),
        data(metainfo=dict(classes=('a',), names=('b',))),
        data('mmseg.BaseSegDataset', data_prefix=dict(img_path='a', seg_map_path='b')),
        data(data_prefix=dict(img='a', sub_data_root='b')),
        data('mmdet.XMLDataset', data_prefix=dict(img='a')),
        data('Unknown', data_prefix=dict(images='a'), backend_args=dict(backend='local')),
        data(backend_args=None),
        {},
    ],
)
def test_keys_that_are_read(config: dict[str, Any]) -> None:
    assert says(check_dataset_keys, config) == []


@pytest.mark.parametrize(
    ('config', 'where', 'message'),
    [
        (data(metainfo=dict(clases=('a',))), 'metainfo.clases', "Did you mean 'classes'?"),
        (data(metainfo=dict(class_names=('a',))), 'metainfo.class_names', "Did you mean 'classes'?"),
        (data(metainfo=dict(classes=('a',), pallete=[1])), 'metainfo.pallete', "Did you mean 'palette'?"),
        (data(data_prefix=dict(img_path='a')), 'data_prefix.img_path', "of CocoDataset but got 'img_path', which"),
        (data('mmseg.BaseSegDataset', data_prefix=dict(ann='b')), 'data_prefix.ann', "Write seg_map_path='b'."),
        (data(backend_args=dict(backend='loacl')), 'backend_args.backend', "Did you mean 'local'?"),
        (data(backend_args=dict(backend='petrel')), 'backend_args.backend', 'the package petrel_client'),
    ],
)
def test_keys_that_are_not(config: dict[str, Any], where: str, message: str) -> None:
    ((level, place, told),) = says(check_dataset_keys, config)
    assert (level, place) == ('error', f'train_dataloader.dataset.{where}')
    assert message in told
