"""Write a folder of digit scenes that mmdet's ``CocoDataset`` and mmseg's ``BaseSegDataset`` read.

Layout: ``{train,val}/images/000000.png``, ``{train,val}/masks/000000.png``, ``annotations/{train,val}.json``
and ``meta.json`` (arguments, statistics, sha256 of the content), which is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from rich.progress import track

from kdplugin.datasets.digit_drawing import (
    AMBIGUOUS,
    CLASSES,
    Scene,
    SceneSettings,
    draw_scene,
    split_digits,
)
from kdplugin.errors import ConfigError, DataError

FORMAT = 1  # raise when the same arguments would draw other scenes
SPLITS = ('train', 'val')
FLOORS = {'train': 1, 'val': 1, 'size': 32, 'seed': 0}


@dataclass(frozen=True)
class SceneReport:
    """What a call of ``make_digit_scenes`` found or wrote; ``str()`` is the text for a person."""

    out: Path
    meta: dict[str, Any]
    seconds: float | None

    def __str__(self) -> str:
        state = 'is up to date' if self.seconds is None else f'drawn in {self.seconds:.1f} s'
        lines = [f'{self.out} {state}.']
        for split in SPLITS:
            found = self.meta['statistics'][split]
            lines.append(
                f'{split}: {found["scenes"]} scenes, {sum(found["digits"])} digits '
                f'({min(found["digits"])} to {max(found["digits"])} per class), '
                f'{found["stroke_percent"]:.1f} % stroke, {found["ambiguous_percent"]:.1f} % of it ambiguous'
            )
        return '\n'.join([*lines, f'sha256 {self.meta["sha256"]}'])


def make_digit_scenes(
    out: str | os.PathLike[str],
    *,
    train: int = 1000,
    val: int = 200,
    size: int = 160,
    seed: int = 0,
    settings: SceneSettings | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SceneReport:
    """Draw digit scenes into a folder, or say that they are there; the same arguments give the same bytes.

    Scene ``i`` of a split depends on seed, size and settings only: more scenes continue a smaller set.
    Everything is drawn in a temporary folder beside ``out`` and moved at the end.

    Args:
        out: Folder to make; it may exist if it is empty or was made by this function.
        train: Number of training scenes.
        val: Number of validation scenes, drawn from digits that training never sees.
        size: Side of the square scenes in pixels.
        seed: Seed of the split of the digits and of every scene.
        settings: Difficulty of the scenes.
        overwrite: Replace scenes made with other arguments; files that are not ours stay.
        progress: Show a progress bar.

    Raises:
        ConfigError: If an argument cannot be drawn.
        DataError: If ``out`` holds something else, was damaged, or cannot be written.

    Example:
        >>> print(make_digit_scenes('data/digit_scenes', train=1000, val=200))  # doctest: +SKIP
    """
    out = Path(out)
    settings = settings or SceneSettings()
    arguments = _checked_arguments(train=train, val=val, size=size, seed=seed)
    arguments['settings'] = json.loads(json.dumps(asdict(settings)))
    try:
        present = _read_meta(out)
        if present is not None and not overwrite:
            _check_same(out, present, arguments)
        if present is not None and _is_intact(out, present, arguments):
            return SceneReport(out, present, None)
        started = time.perf_counter()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{out.name}.partial-', dir=out.parent) as partial:
            fresh = Path(partial) / 'scenes'
            meta = _write_scenes(fresh, arguments, settings, progress)
            _move(fresh, out, present)
    except OSError as error:
        raise DataError(
            f'Expected a folder that can be written at {out} but got: {error}. '
            'Choose another folder or change its rights.'
        ) from error
    return SceneReport(out, meta, time.perf_counter() - started)


def _checked_arguments(**numbers: int) -> dict[str, Any]:
    for name, value in numbers.items():
        floor = FLOORS[name]
        if value < floor:
            raise ConfigError(f'Expected {name} of at least {floor} but got {value}. Choose a larger {name}.')
    return {'format': FORMAT, **numbers}


def own_files(arguments: dict[str, Any]) -> list[str]:
    """The files, relative to the folder and without meta.json, that these arguments make."""
    return [f'annotations/{split}.json' for split in SPLITS] + [
        f'{split}/{kind}/{index:06d}.png'
        for split in SPLITS
        for kind in ('images', 'masks')
        for index in range(arguments[split])
    ]


def content_sha256(folder: Path, files: Iterable[str]) -> str:
    """One sha256 over names and bytes of the files."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(f'{name}\n{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n'.encode())
    return digest.hexdigest()


def _read_meta(out: Path) -> dict[str, Any] | None:
    """The folder's meta.json; None where there is nothing yet."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        meta = json.loads((out / 'meta.json').read_text())
        own_files(meta['arguments'])
        str(SceneReport(out, meta, None))
        return meta
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        raise DataError(
            f'Expected {out} to be new, empty or made by make_digit_scenes but got something without a valid '
            'meta.json. Choose another folder: foreign files are never replaced.'
        ) from None


def _check_same(out: Path, meta: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Refuse to touch scenes that the caller did not ask for or that were changed."""
    if meta['arguments'] != arguments:
        found, asked = ({**side, **side['settings']} for side in (meta['arguments'], arguments))
        changed = [
            f'{key}={found.get(key)!r} (asked for {value!r})'
            for key, value in asked.items()
            if key != 'settings' and found.get(key) != value
        ]
        raise DataError(
            f'Expected {out} to hold the scenes asked for but got {", ".join(changed)}. '
            'Pass --overwrite to replace them or choose another folder.'
        )
    if not _is_intact(out, meta, arguments):
        raise DataError(
            f'Expected the files of {out} to have the sha256 in its meta.json but got missing or changed '
            'files. Pass --overwrite to draw them again.'
        )


def _is_intact(out: Path, meta: dict[str, Any], arguments: dict[str, Any]) -> bool:
    try:
        return meta['arguments'] == arguments and meta['sha256'] == content_sha256(out, own_files(arguments))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write_scenes(folder: Path, arguments: dict[str, Any], settings: SceneSettings, progress: bool) -> dict[str, Any]:
    """Draw both splits into a new folder and return what meta.json says."""
    (folder / 'annotations').mkdir(parents=True)
    statistics = {}
    for number, (split, pools) in enumerate(zip(SPLITS, split_digits(arguments['seed']), strict=True)):
        scenes = (
            draw_scene(np.random.default_rng([arguments['seed'], number, index]), pools, arguments['size'], settings)
            for index in range(arguments[split])
        )
        shown = track(scenes, f'{split} scenes', total=arguments[split], disable=not progress)
        coco, statistics[split] = _write_split(folder / split, shown)
        _write_json(folder / 'annotations' / f'{split}.json', coco)
    sha256 = content_sha256(folder, own_files(arguments))
    meta = {'arguments': arguments, 'statistics': statistics, 'sha256': sha256}
    _write_json(folder / 'meta.json', meta)
    return meta


def _write_split(folder: Path, scenes: Iterable[Scene]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the PNG files of one split; return its COCO annotations and its statistics."""
    for kind in ('images', 'masks'):
        (folder / kind).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    pixels = np.zeros(AMBIGUOUS + 1, np.int64)
    for index, scene in enumerate(scenes):
        name = f'{index:06d}.png'
        Image.fromarray(scene.image).save(folder / 'images' / name, compress_level=3)
        Image.fromarray(scene.semantic).save(folder / 'masks' / name)
        height, width = scene.semantic.shape
        images.append({'id': index, 'file_name': name, 'height': height, 'width': width})
        annotations.extend(_coco_annotations(scene, index, first_id=len(annotations) + 1))
        pixels += np.bincount(scene.semantic.ravel(), minlength=len(pixels))
    categories = [{'id': digit + 1, 'name': name} for digit, name in enumerate(CLASSES)]
    drawn = np.bincount([item['category_id'] - 1 for item in annotations], minlength=len(CLASSES))
    stroke = pixels[1:].sum()
    statistics = {
        'scenes': len(images),
        'digits': drawn.tolist(),
        'stroke_percent': float(100 * stroke / pixels.sum()),
        'ambiguous_percent': float(100 * pixels[AMBIGUOUS] / stroke),
    }
    return {'images': images, 'annotations': annotations, 'categories': categories}, statistics


def _coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """The tight box and the RLE of each digit's clear stroke, and the scikit-learn image it came from."""
    annotations = []
    for number, instance in enumerate(scene.instances, first_id):
        encoded = rle.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
        annotations.append(
            {
                'id': number,
                'image_id': image_id,
                'category_id': instance.digit + 1,
                'bbox': rle.toBbox(encoded).tolist(),
                'area': int(instance.mask.sum()),
                'segmentation': {'size': encoded['size'], 'counts': encoded['counts'].decode('ascii')},
                'iscrowd': 0,
                'source': instance.source,
            }
        )
    return annotations


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, sort_keys=True, separators=(',', ':')) + '\n')


def _move(fresh: Path, out: Path, present: dict[str, Any] | None) -> None:
    """Put finished scenes in place; meta.json names all our files at every moment, its sha256 comes last."""
    if present is None:
        fresh.rename(out)
        return
    meta = json.loads((fresh / 'meta.json').read_text())
    before, after = own_files(present['arguments']), own_files(meta['arguments'])
    foreign = [name for name in sorted(set(after) - set(before)) if (out / name).exists()]
    if foreign:
        raise DataError(
            f'Expected no foreign file where a scene goes but got {len(foreign)} in {out}, '
            f'first {foreign[0]}. Move them away.'
        )
    for name in before:
        (out / name).unlink(missing_ok=True)
    _write_json(out / 'meta.json', {**meta, 'sha256': None})
    for name in [*after, 'meta.json']:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).replace(out / name)
