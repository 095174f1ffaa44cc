"""Which pipelines give the same image each time: what is known to, and nothing else."""

from __future__ import annotations

import ast
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import mmcv.transforms
import pytest
from mmdet.datasets import MultiImageMixDataset
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.registry import MODELS, TRANSFORMS
from torch import nn

from kdplugin.distill.teachers import determinism
from kdplugin.distill.teachers.determinism import DETERMINISTIC, pipeline_text, random_parts

SEG = [
    dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.Resize', scale=(64, 64), keep_ratio=True), dict(type='mmseg.PackSegInputs'),
]  # fmt: skip
DET = [
    dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True), dict(type='mmdet.Pad', size_divisor=32),
    dict(type='mmdet.RandomFlip', prob=0.0), dict(type='mmdet.PackDetInputs'),
]  # fmt: skip


def transform_of(config: Any) -> Any:
    kind = config.get('type', '') if isinstance(config, dict) else ''
    if kind.startswith('mmcv.'):
        return getattr(mmcv.transforms, kind[5:])(**{key: config[key] for key in config if key != 'type'})
    return TRANSFORMS.build(config) if kind else config


def dataset(pipeline: list[Any]) -> BaseDataset:
    return BaseDataset(lazy_init=True, serialize_data=False, pipeline=[transform_of(one) for one in pipeline])


@pytest.mark.parametrize('pipeline', [SEG, DET])
def test_loading_resizing_and_packing_is_deterministic(pipeline: list[Any]) -> None:
    assert random_parts(dataset(pipeline), None) == []


@pytest.mark.parametrize(
    ('transform', 'name'),
    [
        (dict(type='mmseg.RandomCrop', crop_size=(8, 8)), 'mmseg.RandomCrop'),
        (dict(type='mmseg.RandomFlip', prob=0.5), 'mmseg.RandomFlip(prob=0.5)'),
        (dict(type='mmdet.RandomFlip', prob=1.0, direction=['horizontal', 'vertical']), 'mmdet.RandomFlip(prob=1.0)'),
        (dict(type='mmseg.PhotoMetricDistortion'), 'mmseg.PhotoMetricDistortion'),
        (dict(type='mmcv.RandomResize', scale=(64, 64), ratio_range=(0.5, 2), resize_type='mmseg.Resize'),
         'mmcv.RandomResize'),
        (dict(type='mmdet.RandomChoiceResize', scales=[(64, 64), (32, 32)]), 'mmcv.RandomChoiceResize'),
        (dict(type='mmdet.Mosaic'), 'mmdet.Mosaic'),
        (dict(type='mmdet.YOLOXHSVRandomAug'), 'mmdet.YOLOXHSVRandomAug'),
    ],
)  # fmt: skip
def test_random_transforms_are_named(transform: dict[str, Any], name: str) -> None:
    assert random_parts(dataset([*SEG, transform]), None) == [name]


def test_a_flip_that_always_happens_is_deterministic() -> None:
    assert random_parts(dataset([dict(type='mmseg.RandomFlip', prob=1.0, direction='vertical')]), None) == []


def test_what_nobody_knows_counts_as_random() -> None:
    class Resize:
        """Named like a known one, from elsewhere."""

        def __call__(self, results: Any) -> Any:
            return results

    class Own(BaseDataset):
        def prepare_data(self, idx: int) -> Any:
            return {}

    assert random_parts(dataset([Resize()]), None) == [f'{__name__}.Resize']
    assert random_parts(Own(lazy_init=True), None) == [f'{__name__}.Own']
    assert random_parts([1, 2], None) == ['builtins.list']


def test_known_wrappers_are_looked_into_and_mixing_ones_are_not() -> None:
    flip, crop = dict(type='mmseg.RandomFlip', prob=0.5), dict(type='mmseg.RandomCrop', crop_size=(8, 8))
    both = ConcatDataset([dataset([flip]), dataset([crop])], lazy_init=True)
    assert random_parts(both, None) == ['mmseg.RandomFlip(prob=0.5)', 'mmseg.RandomCrop']
    assert random_parts(RepeatDataset(dataset([crop]), times=2, lazy_init=True), None) == ['mmseg.RandomCrop']
    balanced = object.__new__(ClassBalancedDataset)
    balanced.dataset = dataset([crop])
    assert random_parts(balanced, None) == ['mmseg.RandomCrop']
    mixed = object.__new__(MultiImageMixDataset)
    mixed.dataset = dataset(SEG)
    assert random_parts(mixed, None) == ['mmdet.MultiImageMixDataset']


def test_batch_augmentations_of_the_preprocessor_count() -> None:
    def preprocessor(**augment: Any) -> nn.Module:
        return MODELS.build(dict(type='mmdet.DetDataPreprocessor', batch_augments=[augment]))

    random = preprocessor(type='mmdet.BatchSyncRandomResize', random_size_range=(64, 128), size_divisor=32)
    assert random_parts(dataset(DET), random) == ['mmdet.BatchSyncRandomResize of the data_preprocessor']
    assert random_parts(dataset(DET), preprocessor(type='mmdet.BatchFixedSizePad', size=(64, 64))) == []


def test_every_listed_transform_exists_and_draws_no_random_number() -> None:
    """Read from the installed sources, so that a list that goes stale is noticed."""
    sources: dict[tuple[str, str], str] = {}
    for kind in sorted(DETERMINISTIC):
        package, _, name = kind.partition('.')
        found = getattr(
            import_module(f'{package}.datasets.transforms' if package != 'mmcv' else 'mmcv.transforms'), name
        )
        for base in found.__mro__[:-1]:
            file = sys.modules[base.__module__].__file__ or ''
            if (file, base.__name__) not in sources:
                text = Path(file).read_text() if file else ''
                nodes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
                lines = text.splitlines()
                sources |= {(file, n.name): '\n'.join(lines[n.lineno - 1 : n.end_lineno]) for n in nodes}
            assert 'random.' not in sources.get((file, base.__name__), ''), f'{kind}: {base}'
    assert len(sources) > 50


def test_the_text_tells_pipelines_apart_and_does_not_change_by_use(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((20, 30, 3), np.uint8))
    pipeline = [SEG[0], dict(type='mmseg.ResizeShortestEdge', scale=16, max_size=64), SEG[-1]]
    one, other = dataset(pipeline), dataset(pipeline)
    text = pipeline_text(one)
    one.pipeline(dict(img_path=str(tmp_path / 'x.png'), seg_map_path=None, reduce_zero_label=False))
    assert pipeline_text(one) == pipeline_text(other) == text
    assert '0x' not in text
    assert json.loads(text)[0][1][0] == 'mmseg.ResizeShortestEdge'
    changed = dataset([SEG[0], dict(type='mmseg.ResizeShortestEdge', scale=17, max_size=64), SEG[-1]])
    assert pipeline_text(changed) != text
    assert determinism.kind_of(one.pipeline.transforms[0]) == 'mmcv.LoadImageFromFile'
