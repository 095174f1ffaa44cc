"""Bench2Drive as ORION reads it: a frame of six cameras, boxes in space, and their rectangles on the images.

M box, H W pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from kdplugin.datasets.bench2drive_classes import CLASSES, PALETTE, class_of
from kdplugin.datasets.box_projection import Floats, project_boxes
from kdplugin.datasets.plain_pickle import read_plain_pickle
from kdplugin.errors import ConfigError, DataError
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import DATASETS

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
LIDAR = 'LIDAR_TOP'
LAYOUTS = ('rig', 'views')


@DATASETS.register_module()
class Bench2DriveDataset(BaseDataset):
    """Frames of ``data/infos/b2d_infos_{train,val}.pkl``, which prepare_B2D.py of Bench2DriveZoo writes.

    The infos are a list of dicts by frame: ``folder``, ``frame_idx``, ``sensors`` (by camera ``data_path``,
    ``intrinsic`` (3, 3) and ``cam2ego`` (4, 4), and ``lidar2ego`` of LIDAR_TOP), ``gt_boxes`` (M, 9: centre, width,
    length, height, yaw, velocity, in the lidar's right-handed space) and ``gt_names`` (M). They are unpickled without
    running code.

    With ``layout='rig'`` a sample is a frame: ``views`` holds one dict for each camera, for ``kdplugin.PerView``. With
    'views' each image is a sample. A view has what mmdet reads (``img_path``, ``img_id``, ``instances`` with
    the rectangles of the boxes, those of hidden objects too) and, for heads of one's own, ``camera``, ``lidar2img``
    (4, 4), ``gt_boxes_3d`` (M, 9) and ``gt_labels_3d`` (M,).

    Args:
        ann_file: of the infos, below ``data_root`` unless it is absolute.
        data_root: of the infos; ``data_prefix=dict(img=...)`` leads to the folder with Bench2Drive's own folders.
        layout: 'rig' or 'views'.
        cameras: names of the cameras to read, in their order.
        image_size: (H, W) of the image files, to which rectangles are cut.
        interval: take every so manieth frame.
        settings: see mmengine's ``BaseDataset``.

    Raises:
        ConfigError: unknown cameras or layout.
        DataError: the infos are no list of frames, or lack something.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        layout: str = 'rig',
        cameras: Sequence[str] = CAMERAS,
        image_size: tuple[int, int] = (900, 1600),
        interval: int = 1,
        **settings: Any,
    ) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(
                f'Expected layout of {list(LAYOUTS)} but got {layout!r}.{did_you_mean(layout, LAYOUTS)} A rig is a '
                'frame of all cameras.'
            )
        unknown = [camera for camera in cameras if camera not in CAMERAS]
        if unknown or not cameras:
            raise ConfigError(f'Expected cameras of {list(CAMERAS)} but got {list(cameras)}. Correct the names.')
        self.layout, self.cameras, self.interval = layout, tuple(cameras), interval
        self.image_size = (int(image_size[0]), int(image_size[1]))
        super().__init__(ann_file=ann_file, data_root=data_root, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return what is kept of each sample; views and rectangles are made when a sample is asked for."""
        infos = read_plain_pickle(self.ann_file)
        if isinstance(infos, Mapping) and 'infos' in infos:  # as nuScenes' files have it
            infos = infos['infos']
        if not isinstance(infos, list) or not infos:
            raise DataError(
                f'Expected a list of frames in {self.ann_file} but got {type(infos).__name__}. Write the infos with '
                'prepare_B2D.py of Bench2DriveZoo.'
            )
        frames = [self._frame(info, index) for index, info in enumerate(infos) if index % self.interval == 0]
        if self.layout == 'rig':
            return frames
        return [{**frame, 'cameras': [camera]} for frame in frames for camera in self.cameras]

    def _frame(self, info: Any, index: int) -> dict[str, Any]:
        try:
            sensors = {name: info['sensors'][name] for name in self.cameras}
            lidar = np.asarray(info['sensors'][LIDAR]['lidar2ego'], dtype=float)
            labels = [class_of(str(name)) for name in info['gt_names']]
            known = [number for number, label in enumerate(labels) if label is not None]
            boxes = np.asarray(info['gt_boxes'], dtype=float).reshape(len(labels), -1)[known]
            return dict(
                folder=str(info['folder']), frame_idx=int(info['frame_idx']), frame=index, cameras=list(self.cameras),
                paths={name: str(sensor['data_path']) for name, sensor in sensors.items()},
                lidar2img={name: lidar_to_image(sensor, lidar) for name, sensor in sensors.items()},
                gt_boxes_3d=boxes, gt_labels_3d=np.array([labels[number] for number in known], dtype=np.int64),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f'Expected folder, frame_idx, sensors, gt_boxes and gt_names in frame {index} of {self.ann_file} but '
                f'got {type(error).__name__}: {error}. Write the infos with prepare_B2D.py of Bench2DriveZoo.'
            ) from None

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return one frame with its views, or one view."""
        frame = super().get_data_info(idx)
        views = [self._view(frame, camera) for camera in frame['cameras']]
        if self.layout == 'views':
            return {**views[0], 'sample_idx': frame['sample_idx']}
        shared = {key: frame[key] for key in ('folder', 'frame_idx', 'sample_idx', 'gt_boxes_3d', 'gt_labels_3d')}
        return {**shared, 'views': views}

    def _view(self, frame: Mapping[str, Any], camera: str) -> dict[str, Any]:
        boxes, labels, to_image = frame['gt_boxes_3d'], frame['gt_labels_3d'], frame['lidar2img'][camera]
        rectangles, kept = project_boxes(boxes, to_image, self.image_size)
        instances = [
            dict(bbox=rectangle.tolist(), bbox_label=int(labels[number]), ignore_flag=0)
            for rectangle, number in zip(rectangles, kept, strict=True)
        ]
        return dict(
            img_path=str(Path(self.data_prefix.get('img') or self.data_root or '.') / frame['paths'][camera]),
            img_id=frame['frame'] * len(CAMERAS) + CAMERAS.index(camera), camera=camera, folder=frame['folder'],
            frame_idx=frame['frame_idx'], height=self.image_size[0], width=self.image_size[1], instances=instances,
            lidar2img=to_image, gt_boxes_3d=boxes, gt_labels_3d=labels,
        )  # fmt: skip


def lidar_to_image(camera: Mapping[str, Any], lidar_to_ego: Floats) -> Floats:
    """Return (4, 4): a camera's intrinsics, times the way from the lidar to the ego and on to the camera."""
    intrinsic = np.eye(4)
    given = np.asarray(camera['intrinsic'], dtype=float)
    intrinsic[: given.shape[0], : given.shape[1]] = given
    result: Floats = intrinsic @ np.linalg.inv(np.asarray(camera['cam2ego'], dtype=float)) @ lidar_to_ego
    return result
