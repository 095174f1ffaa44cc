"""Bench2Drive's infos as samples for mmdet: single views, and rigs through to a detector."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import orion_models as orion
import pytest
import torch
from engine_fixtures import build
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.datasets.bench2drive import CAMERAS
from kdplugin.datasets.bench2drive_classes import CLASSES, class_of
from kdplugin.datasets.bench2drive_fixture import write_fixture
from kdplugin.errors import ConfigError, DataError

VIEW = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(128, 64), keep_ratio=False),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'camera',
                                          'lidar2img', 'gt_boxes_3d', 'gt_labels_3d', 'input_ids', 'vlm_labels')),
]  # fmt: skip
RIG = [
    dict(type='kdplugin.LoadAnnotationVQA', data_root='nowhere'),
    dict(type='kdplugin.PerView', transforms=VIEW, shared=('input_ids', 'vlm_labels')),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('b2d') / 'b2d'
    write_fixture(out, frames=3)
    return out


def dataset(folder: Path, **settings: Any) -> Any:
    init_default_scope('mmdet')
    config = dict(
        type='kdplugin.Bench2DriveDataset', data_root=str(folder), ann_file='infos/b2d_infos_train.pkl',
        data_prefix=dict(img='bench2drive'), image_size=(90, 160), pipeline=[], **settings,
    )  # fmt: skip
    return DATASETS.build(config)


def test_a_rig_is_a_frame_of_six_views(folder: Path) -> None:
    frames = dataset(folder)
    assert len(frames) == 3
    assert frames.metainfo['classes'] == CLASSES
    frame = frames[1]
    assert [view['camera'] for view in frame['views']] == list(CAMERAS)
    assert [view['img_id'] for view in frame['views']] == [6, 7, 8, 9, 10, 11]
    assert all(Path(view['img_path']).is_file() for view in frame['views'])
    assert frame['gt_boxes_3d'].shape == (len(frame['gt_labels_3d']), 9)


def test_boxes_of_no_class_are_left_out_and_others_stay_whole(folder: Path) -> None:
    infos = pickle.loads((folder / 'infos/b2d_infos_train.pkl').read_bytes())
    frames = dataset(folder)
    left = 0
    for info, frame in zip(infos, frames, strict=True):
        known = [number for number, name in enumerate(info['gt_names']) if class_of(name) is not None]
        left += len(info['gt_names']) - len(known)
        np.testing.assert_array_equal(frame['gt_boxes_3d'], info['gt_boxes'][known])
        assert frame['gt_labels_3d'].tolist() == [class_of(info['gt_names'][number]) for number in known]
    assert left > 0


def test_a_box_before_a_camera_is_where_its_angle_says(folder: Path, tmp_path: Path) -> None:
    """A box at the height of the camera, ahead or 55 degrees to the left, is in the middle of that camera's image."""
    infos = pickle.loads((folder / 'infos/b2d_infos_train.pkl').read_bytes())[:1]
    angles = np.radians([0, 55, -55, 180, 110, -110])
    centres = np.stack([-20 * np.sin(angles), 20 * np.cos(angles), np.full(6, -0.2)], axis=1)
    sizes = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], (6, 1))
    infos[0].update(gt_boxes=np.concatenate([centres, sizes], axis=1), gt_names=np.array(['vehicle.audi.tt'] * 6))
    (tmp_path / 'infos').mkdir()
    (tmp_path / 'infos/b2d_infos_train.pkl').write_bytes(pickle.dumps(infos))
    for view in dataset(tmp_path)[0]['views']:
        boxes = np.array([one['bbox'] for one in view['instances']])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert np.abs(middles - [80, 45]).max(axis=1).min() < 1.0, view['camera']


def test_views_are_samples_of_their_own(folder: Path) -> None:
    views = dataset(folder, layout='views', cameras=CAMERAS[:2], interval=2)
    assert len(views) == 4
    rig = dataset(folder)[2]['views']
    for number, view in enumerate([views[2], views[3]]):
        assert view['img_path'] == rig[number]['img_path']
        assert view['instances'] == rig[number]['instances']


def test_every_rectangle_lies_on_its_image(folder: Path) -> None:
    views = dataset(folder, layout='views')
    boxes = np.array([one['bbox'] for view in views for one in view['instances']])
    assert len(boxes) > 10
    assert (boxes >= 0).all()
    assert (boxes <= [160, 90, 160, 90]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 2).all()


def test_rigs_train_a_detector(folder: Path, tmp_path: Path) -> None:
    frames = dataset(folder, layout='rig')
    frames.pipeline = DATASETS.build(dict(
        type='kdplugin.Bench2DriveDataset', data_root=str(folder), ann_file='infos/b2d_infos_train.pkl',
        data_prefix=dict(img='bench2drive'), image_size=(90, 160), pipeline=RIG,
    )).pipeline  # fmt: skip
    batch = pseudo_collate([frames[0], frames[1]])
    assert [tuple(rig.shape) for rig in batch['inputs']] == [(6, 3, 64, 128)] * 2
    file = orion.save_teacher(tmp_path)
    preprocessor = dict(orion.PREPROCESSOR, type='kdplugin.RigPreprocessor')
    model = build(orion.student(file, data_preprocessor=preprocessor)).train()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    assert tuple(data['inputs'].shape) == (12, 3, 64, 128)
    samples = data['data_samples']
    assert [sample.camera for sample in samples] == [*CAMERAS, *CAMERAS]
    assert samples[0].batch_input_shape == (64, 128)
    assert samples[7].vlm_labels.tolist() == [-100]
    single = batch['inputs'][1][0][[2, 1, 0]].float()
    mean, std = (torch.tensor(orion.PREPROCESSOR[key])[:, None, None] for key in ('mean', 'std'))
    torch.testing.assert_close(data['inputs'][6], (single - mean) / std)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    assert total.isfinite()
    predicted = model.eval()(**model.data_preprocessor(batch, False), mode='predict')
    assert len(predicted) == 12


def test_wrong_settings_and_files_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected layout of .*'view'. Did you mean 'views'"):
        dataset(folder, layout='view')
    with pytest.raises(ConfigError, match='Expected cameras of'):
        dataset(folder, cameras=['CAM_TOP'])
    (tmp_path / 'infos').mkdir()
    for content, message in (({}, 'Expected a list of frames'), ([{'folder': 'a'}], 'in frame 0 of .*KeyError')):
        (tmp_path / 'infos/b2d_infos_train.pkl').write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=message):
            dataset(tmp_path)
