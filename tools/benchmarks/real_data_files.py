"""Real data in the layouts that mmdet and mmseg read, at sizes for one thread: blood cells, aerial images of Dubai."""

from __future__ import annotations

import hashlib
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdplugin.errors import DataError

CELLS = ('RBC', 'WBC', 'Platelets')
BCCD_SIZE = (192, 144)
COLOURS = {0x3C1098: 0, 0x8429F6: 1, 0x6EC1E4: 2, 0xFEDD3A: 3, 0xE2A929: 4, 0x9B9B9B: 255, 0x000000: 255}
"""Label of each colour of Dubai's masks: building, land, road, vegetation, water; 255 is ignored."""
VAL_TILES = ('Tile 1', 'Tile 7')
PATCH = 256

Box = tuple[float, float, float, float]


def read_boxes(path: Path) -> list[tuple[str, Box]]:
    """Return the class and the corners (x1, y1, x2, y2) of each object in a Pascal VOC file, without empty boxes."""
    objects = []
    for item in ElementTree.parse(path).iter('object'):  # noqa: S314 - the caller's own data
        box = item.find('bndbox')
        if box is None:
            continue
        x1, y1, x2, y2 = (float(box.findtext(key, '0')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
        if x2 > x1 and y2 > y1:
            objects.append((item.findtext('name', ''), (x1 - 1, y1 - 1, x2 - 1, y2 - 1)))
    return objects


def write_bccd(source: Path, out: Path) -> None:
    """Write resized images and ``train.json`` and ``val.json`` in COCO's format."""
    (out / 'images').mkdir(parents=True)
    for split in ('train', 'val'):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, name in enumerate((source / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()):
            with Image.open(source / 'JPEGImages' / f'{name}.jpg') as image:
                width, height = image.size
                image.convert('RGB').resize(BCCD_SIZE, Image.Resampling.BOX).save(out / 'images' / f'{name}.png')
            images.append({'id': number, 'file_name': f'{name}.png', 'width': BCCD_SIZE[0], 'height': BCCD_SIZE[1]})
            factors = BCCD_SIZE[0] / width, BCCD_SIZE[1] / height
            for kind, box in read_boxes(source / 'Annotations' / f'{name}.xml'):
                annotations.append(coco_box(len(annotations) + 1, number, CELLS.index(kind) + 1, box, factors))
        categories = [{'id': number, 'name': name} for number, name in enumerate(CELLS, 1)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        (out / f'{split}.json').write_text(json.dumps(content))


def coco_box(number: int, image: int, category: int, box: Box, factors: tuple[float, float]) -> dict[str, Any]:
    """Return a resized box as COCO's annotation.

    Example:
        >>> coco_box(1, 0, 2, (10, 20, 30, 60), (0.5, 0.25))['bbox']
        [5.0, 5.0, 10.0, 10.0]
    """
    (x1, y1, x2, y2), (across, down) = box, factors
    left, top, width, height = x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down
    return {
        'id': number,
        'image_id': image,
        'category_id': category,
        'bbox': [left, top, width, height],
        'area': width * height,
        'iscrowd': 0,
    }


def labels_of(colours: np.ndarray, table: Mapping[int, int] = COLOURS) -> np.ndarray:
    """Return the labels (H, W) of a mask of colours (H, W, 3).

    Raises:
        DataError: a colour has no label.

    Example:
        >>> labels_of(np.array([[[0x3C, 0x10, 0x98], [0, 0, 0]]], dtype=np.uint8)).tolist()
        [[0, 255]]
    """
    packed = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(-1)
    found, places = np.unique(packed, return_inverse=True)
    unknown = [f'{colour:06X}' for colour in found if int(colour) not in table]
    if unknown:
        raise DataError(
            f'Expected colours {sorted(f"{colour:06X}" for colour in table)} in a mask but got {unknown}. '
            'Give a table that names them.'
        )
    return np.array([table[int(colour)] for colour in found], dtype=np.uint8)[places.reshape(packed.shape)]


def corners(length: int, patch: int) -> list[int]:
    """Return where patches begin that cover a side, evenly and with the least overlap.

    Example:
        >>> corners(600, 256), corners(200, 256)
        ([0, 172, 344], [0])
    """
    count = max(1, -(-length // patch))
    return [round(start) for start in np.linspace(0, max(0, length - patch), count)]


def write_dubai(source: Path, out: Path) -> None:
    """Write images at half size and masks as labels, split by tile; training images in patches, which load faster."""
    for tile in sorted(path for path in source.iterdir() if path.is_dir()):
        split = 'val' if tile.name in VAL_TILES else 'train'
        for kind in ('images', 'masks'):
            (out / split / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((tile / 'images').glob('*.jpg')):
            name = f'{tile.name.replace(" ", "_")}_{path.stem}'
            with Image.open(path) as picture, Image.open(tile / 'masks' / f'{path.stem}.png') as mask:
                size = picture.width // 2, picture.height // 2
                image = picture.convert('RGB').resize(size, Image.Resampling.BOX)
                labels = Image.fromarray(labels_of(np.asarray(mask.convert('RGB'))))
            labels = labels.resize(size, Image.Resampling.NEAREST)
            patch = max(size) if split == 'val' else PATCH
            for number, (top, left) in enumerate(product(corners(size[1], patch), corners(size[0], patch))):
                box = (left, top, min(left + patch, size[0]), min(top + patch, size[1]))
                image.crop(box).save(out / split / 'images' / f'{name}_{number}.png')
                labels.crop(box).save(out / split / 'masks' / f'{name}_{number}.png')


WRITERS = {'bccd': write_bccd, 'dubai': write_dubai}


def prepare(name: str, source: Path, out: Path) -> str:
    """Write a data set unless it is there, and return a hash of its files.

    Raises:
        DataError: the source is missing, or a mask has a colour without a label.
    """
    if not (source / name).is_dir():
        raise DataError(f'Expected {name} below {source} but found none. Give the folder with --source or REAL_DATA.')
    if not out.is_dir():
        partial = out.with_name(f'.{out.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        WRITERS[name](source / name, partial)
        partial.rename(out)
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob('*') if path.is_file()):
        digest.update(f'{path.relative_to(out)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n'.encode())
    return digest.hexdigest()[:16]
