from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fixtures import shared as shared
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from kdplugin.errors import ConfigError, DataError
from kdplugin.reports.example_images import images_of

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def config(shared: Path, **changes: Any) -> Config:
    dataset = dict(
        type='BaseSegDataset', data_root=str(shared / 'digits'), img_suffix='.png', seg_map_suffix='.png',
        data_prefix=dict(img_path='val/images', seg_map_path='val/masks'), pipeline=PIPELINE, serialize_data=False,
        metainfo=dict(classes=('a',)), **changes,
    )  # fmt: skip
    return Config(dict(val_dataloader=dict(dataset=dataset)))


def test_without_paths_the_first_of_the_validation_set_come_with_their_truth(shared: Path) -> None:
    found = list(images_of(config(shared), [], 3))
    assert [name for name, _ in found] == ['000000.png', '000001.png', '000002.png']
    name, item = found[1]
    pixels = np.asarray(Image.open(shared / 'digits' / 'val' / 'images' / name))
    assert np.array_equal(item['inputs'].permute(1, 2, 0).flip(2).numpy(), pixels)
    assert 'gt_sem_seg' in item['data_samples']
    assert len(list(images_of(config(shared), [], 99))) == 4


def test_files_go_through_the_pipeline_without_annotations(shared: Path, tmp_path: Path) -> None:
    file = tmp_path / 'photo.png'
    Image.fromarray(np.full((10, 12, 3), (10, 20, 30), dtype=np.uint8)).save(file)
    ((name, item),) = images_of(config(shared), [file], 3)
    assert name == 'photo.png'
    assert item['inputs'].flatten(1).unique(dim=1).flatten().tolist() == [30, 20, 10]
    assert 'gt_sem_seg' not in item['data_samples']


def test_wrapped_datasets_and_the_test_loader_have_a_pipeline_too(shared: Path) -> None:
    inner = config(shared).val_dataloader.dataset
    file = shared / 'digits' / 'val' / 'images' / '000000.png'
    for wrapper in (dict(type='RepeatDataset', times=1, dataset=inner), dict(type='ConcatDataset', datasets=[inner])):
        ((name, _),) = images_of(Config(dict(test_dataloader=dict(dataset=wrapper))), [file], 1)
        assert name == '000000.png'


def test_mistakes(shared: Path, tmp_path: Path) -> None:
    gone = tmp_path / 'gone.png'
    with pytest.raises(DataError, match=r'Expected image files but .*gone.png does not exist. Check the path.'):
        list(images_of(config(shared), [gone], 1))
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(DataError, match=r'Expected an image that the validation pipeline reads but .*text.png gives'):
        list(images_of(config(shared), [tmp_path / 'text.png'], 1))
    with pytest.raises(ConfigError, match=r'Expected a val_dataloader or test_dataloader in .* but got neither'):
        images_of(Config({}), [], 1)
    with pytest.raises(ConfigError, match='Expected a pipeline in the validation dataset but Odd has none'):
        images_of(Config(dict(val_dataloader=dict(dataset=dict(type='Odd')))), [tmp_path / 'text.png'], 1)
    with pytest.raises(DataError, match='Expected images in the validation set but it has none'):
        list(images_of(config(shared, indices=0), [], 1))
