from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import places, says

from kdplugin.preflight.samples import check_samples

WHERE = 'train_dataloader.dataset'


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


def coco(folder: Path, **content: Any) -> dict[str, Any]:
    (folder / 'images').mkdir(exist_ok=True)
    (folder / 'images' / 'a.jpg').touch()
    whole = dict(images=[dict(file_name='a.jpg')], annotations=[], categories=[dict(name='cat'), dict(name='dog')])
    (folder / 'a.json').write_text(json.dumps({**whole, **content}))
    dataset = dict(
        type='CocoDataset', data_root=str(folder), ann_file='a.json', data_prefix=dict(img='images'),
        metainfo=dict(classes=('cat', 'dog')),
    )  # fmt: skip
    return dict(train_dataloader=dict(dataset=dataset))


def test_annotations_speak_of_the_images_and_classes(tmp_path: Path) -> None:
    assert says(check_samples, coco(tmp_path)) == []
    (finding,) = says(check_samples, coco(tmp_path, categories=[dict(name='Cat'), dict(name='dog')]))
    assert finding[:2] == ('error', f'{WHERE}.metainfo.classes')
    assert "['cat'], which have none" in finding[2]
    for content in (dict(images=[dict(file_name='b.jpg')]), dict(images=[])):
        assert places(check_samples, coco(tmp_path, **content)) == [('error', f'{WHERE}.ann_file')]


def test_a_file_that_is_no_annotation(tmp_path: Path) -> None:
    config = coco(tmp_path)
    (tmp_path / 'a.json').write_text('{"images": [')
    assert places(check_samples, config) == [('error', f'{WHERE}.ann_file')]
    (tmp_path / 'a.json').write_text('{}')
    assert 'has no images, annotations, categories' in says(check_samples, config)[0][2]


def test_folders_hold_images_of_the_suffix(tmp_path: Path) -> None:
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), data_prefix=dict(img_path='i'), img_suffix='.png')
    (tmp_path / 'i').mkdir()
    (tmp_path / 'i' / 'a.txt').touch()
    assert places(check_samples, dict(train_dataloader=dict(dataset=dataset))) == [('error', f'{WHERE}.data_prefix')]
    (tmp_path / 'i' / 'a.jpg').touch()
    assert places(check_samples, dict(train_dataloader=dict(dataset=dataset))) == [('error', f'{WHERE}.img_suffix')]
    (tmp_path / 'i' / 'b.png').touch()
    assert says(check_samples, dict(train_dataloader=dict(dataset=dataset))) == []


def test_images_and_annotations_are_of_one_split(tmp_path: Path) -> None:
    def config(images: str, annotations: str) -> dict[str, Any]:
        dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file=annotations, data_prefix=dict(img=images))
        return dict(train_dataloader=dict(dataset=dataset))

    assert places(check_samples, config('val/images', 'a/train.json')) == [('warning', f'{WHERE}.data_prefix')]
    for images, file in (
        ('train2017/', 'annotations/instances_train2017.json'), ('images', 'train.json'), ('trainval', 'val.json'),
        ('train/val', 'train.json'),
    ):  # fmt: skip
        assert says(check_samples, config(images, file)) == []


def test_label_images_end_as_the_dataset_says(tmp_path: Path) -> None:
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels' / 'a.png').touch()

    def of(suffix: str) -> list[tuple[str, str]]:
        dataset = dict(
            type='mmseg.BaseSegDataset', data_root=str(tmp_path), data_prefix=dict(seg_map_path='labels'),
            seg_map_suffix=suffix,
        )  # fmt: skip
        return places(check_samples, dict(train_dataloader=dict(dataset=dataset)))

    assert of('.png') == of('') == []
    assert of('.jpg') == [('error', f'{WHERE}.seg_map_suffix')]
