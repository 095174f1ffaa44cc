"""A tiny ORION detector with a config on the shared digit scenes and a checkpoint, for tools that prune."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orion_models as orion
from mmengine.config import Config

from kdplugin.datasets.digit_drawing import CLASSES

HEAD_COUNT, NEURON_COUNT = orion.HEADS, 85


def loader(shared: Path, split: str) -> dict[str, object]:
    """Return the dataloader of a part of the shared scenes."""
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pipeline = [
        dict(type='LoadImageFromFile'), dict(type='Resize', scale_factor=1.0, keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=keys),
    ]  # fmt: skip
    dataset = dict(
        type='CocoDataset', data_root=str(shared / 'digits'), ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=f'{split}/images'), metainfo=dict(classes=CLASSES), pipeline=pipeline,
        test_mode=split == 'val',
    )  # fmt: skip
    sampler = dict(type='DefaultSampler', shuffle=split == 'train')
    return dict(batch_size=2, num_workers=0, persistent_workers=False, sampler=sampler, dataset=dataset)


@cache
def pruning_teacher(shared: Path) -> tuple[str, str]:
    """Return a config file and a checkpoint."""
    content = dict(
        default_scope='mmdet', model=orion.teacher(), train_dataloader=loader(shared, 'train'),
        test_dataloader=loader(shared, 'val'), test_cfg=dict(type='TestLoop'), log_level='ERROR',
        test_evaluator=dict(type='CocoMetric', ann_file=str(shared / 'digits/annotations/val.json'), metric='bbox'),
        visualizer=dict(type='DetLocalVisualizer'), env_cfg=dict(cudnn_benchmark=False),
    )  # fmt: skip
    path = shared / 'pruning_teacher.py'
    plain = Config(content).to_dict()
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in plain.items() if key not in ('env_variables',)))
    return str(path), orion.save_teacher(shared)
