"""A few invented frames in the layout of Bench2Drive and Chat-B2D, for tests and first steps without the data.

M box, H W pixel. The lidar looks along y, x to its right; the ego along x, y to its left; a camera along z, x to its
right, y down.
"""

from __future__ import annotations

import json
import math
import pickle  # only to write
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kdplugin.datasets.bench2drive import CAMERAS, LIDAR, lidar_to_image
from kdplugin.datasets.bench2drive_classes import PALETTE, class_of
from kdplugin.datasets.box_projection import Floats, project_boxes
from kdplugin.errors import DataError

FOLDERS = dict(zip(CAMERAS, ('front', 'front_left', 'front_right', 'back', 'back_left', 'back_right'), strict=True))
ANGLES = dict(zip(CAMERAS, (0, 55, -55, 180, 110, -110), strict=True))
"""Degrees to the left."""
VIEW = 70.0
"""Degrees that an image is wide."""
SCENARIOS = {'train': 'v1/Accident_Town03_Route101_Weather23', 'val': 'v1/ParkedObstacle_Town05_Route221_Weather13'}
SIZES = {
    'vehicle.audi.tt': (2.0, 4.2, 1.4),
    'vehicle.ford.ambulance': (2.4, 6.4, 2.4),
    'vehicle.bh.crossbike': (0.9, 1.5, 1.6),
    'walker.pedestrian.0004': (0.6, 0.6, 1.8),
    'traffic.traffic_light': (0.6, 0.6, 2.0),
    'static.prop.constructioncone': (0.5, 0.5, 0.8),
    'static.prop.bench': (0.6, 1.8, 0.9),
}
"""Width, length and height by name; the last is no object of Bench2Drive's classes."""
LIDAR_TO_EGO = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])


@dataclass(frozen=True)
class FixtureReport:
    """What was written; ``str()`` is the text for a person."""

    out: Path
    frames: int
    images: int

    def __str__(self) -> str:
        return f'{self.out}: {self.frames} frames with {self.images} images, infos and dialogues'


def write_fixture(
    out: str | Path, *, frames: int = 4, size: tuple[int, int] = (90, 160), boxes: int = 8, seed: int = 0
) -> FixtureReport:
    """Write ``infos/``, ``bench2drive/`` and ``chat-B2D/`` into a folder; the same arguments give the same content.

    Args:
        out: folder, new or empty.
        frames: of each split.
        size: (H, W) of the images; Bench2Drive's have 900 x 1600.
        boxes: objects of a frame.
        seed: of everything.

    Raises:
        DataError: the folder holds something.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f'Expected a new or empty folder but {out} holds something. Choose another one.')
    images = 0
    for number, (split, folder) in enumerate(SCENARIOS.items()):
        infos = []
        for index in range(frames):
            info = frame_info(np.random.default_rng([seed, number, index]), folder, index, size, boxes)
            images += _write_images(out / 'bench2drive', info, size)
            _write_dialogue(out / 'chat-B2D' / split, info)
            infos.append(info)
        (out / 'infos').mkdir(parents=True, exist_ok=True)
        with open(out / 'infos' / f'b2d_infos_{split}.pkl', 'wb') as file:
            pickle.dump(infos, file)
    return FixtureReport(out, frames * len(SCENARIOS), images)


def frame_info(rng: np.random.Generator, folder: str, index: int, size: tuple[int, int], boxes: int) -> dict[str, Any]:
    """Return what prepare_B2D.py of Bench2DriveZoo writes about a frame."""
    names = rng.choice(list(SIZES), boxes)
    angle, distance = rng.uniform(0, 2 * np.pi, boxes), rng.uniform(6, 40, boxes)
    centres = np.stack([distance * np.cos(angle), distance * np.sin(angle), np.full(boxes, -1.0)], axis=1)
    sizes = np.array([SIZES[name] for name in names])
    yaw, speed = rng.uniform(-np.pi, np.pi, (boxes, 1)), rng.normal(0, 3, (boxes, 2))
    pose = np.eye(4)
    pose[:3, 3] = [5.0 * index, 2.0, 0.0]
    return dict(
        folder=folder, town_name=folder.split('_')[1], frame_idx=index, world2ego=np.linalg.inv(pose),
        command_far_xy=np.array([50.0, 0.0]), command_far=4, command_near_xy=np.array([10.0, 0.0]), command_near=4,
        ego_yaw=0.0, ego_translation=pose[:3, 3].copy(), ego_vel=np.array([5.0, 0.0, 0.0]),
        ego_accel=np.zeros(3), ego_rotation_rate=np.zeros(3), ego_size=np.array([1.9, 4.9, 1.5]),
        brake=0.0, throttle=0.7, steer=0.0, sensors=_sensors(folder, index, size, pose),
        gt_ids=np.arange(boxes), gt_boxes=np.concatenate([centres, sizes, yaw, speed], axis=1), gt_names=names,
        num_points=np.full(boxes, 20), npc2world=np.tile(np.eye(4), (boxes, 1, 1)),
    )  # fmt: skip


def _sensors(folder: str, index: int, size: tuple[int, int], pose: Floats) -> dict[str, Any]:
    focal = size[1] / (2 * math.tan(math.radians(VIEW / 2)))
    intrinsic = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])
    sensors: dict[str, Any] = {}
    for camera, degrees in ANGLES.items():
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        to_ego = np.array([[sin, 0, cos, 0.8 * cos], [-cos, 0, sin, 0.8 * sin], [0, -1, 0, 1.6], [0, 0, 0, 1]])
        path = f'{folder}/camera/rgb_{FOLDERS[camera]}/{index:05d}.jpg'
        world = np.linalg.inv(pose @ to_ego)
        sensors[camera] = dict(cam2ego=to_ego, intrinsic=intrinsic, world2cam=world, data_path=path)
    sensors[LIDAR] = dict(lidar2ego=LIDAR_TO_EGO, world2lidar=np.linalg.inv(pose @ LIDAR_TO_EGO))
    return sensors


def _write_images(root: Path, info: dict[str, Any], size: tuple[int, int]) -> int:
    for camera in CAMERAS:
        sensor = info['sensors'][camera]
        image = Image.new('RGB', (size[1], size[0]), (150, 180, 210))
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, size[0] // 2, size[1], size[0]), fill=(90, 90, 95))
        to_image = lidar_to_image(sensor, info['sensors'][LIDAR]['lidar2ego'])
        rectangles, kept = project_boxes(info['gt_boxes'], to_image, size)
        for rectangle, number in zip(rectangles, kept, strict=True):
            label = class_of(str(info['gt_names'][number]))
            pen.rectangle(tuple(rectangle), fill=(60, 60, 60) if label is None else PALETTE[label])
        file = root / sensor['data_path']
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, quality=90)
    return len(CAMERAS)


def _write_dialogue(root: Path, info: dict[str, Any]) -> None:
    objects = [name for name in info['gt_names'] if class_of(str(name)) is not None]
    turns = [
        ('What is around the ego vehicle?', f'There are {len(objects)} objects around the ego vehicle.'),
        ('What should the ego vehicle do?', 'Follow the lane at its current speed.'),
    ]
    pairs = [[{'from': 'human', 'value': asked}, {'from': 'gpt', 'value': said}] for asked, said in turns]
    file = root / Path(info['folder']).name / f'{info["frame_idx"]:05d}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(pairs, indent=1) + '\n')
