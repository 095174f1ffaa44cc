"""Images as a config's validation reads them: files by path, or the first of its data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from kdplugin.errors import ConfigError, DataError

LOADERS = ('val_dataloader', 'test_dataloader')


def images_of(config: Config, paths: Sequence[str | Path], count: int) -> Iterator[tuple[str, Any]]:
    """Return name and item (what a data preprocessor takes) of images, one by one through the validation pipeline.

    Args:
        config: with a ``val_dataloader`` or ``test_dataloader``, read in its default scope.
        paths: of image files; annotations are not read for them. Without any, the first of the dataset are taken.
        count: how many of the dataset.

    Raises:
        ConfigError: the config has no such data loader, or its dataset no pipeline.
        DataError: an image is missing or cannot be read, or the dataset is empty.
    """
    missing = [str(path) for path in paths if not Path(path).is_file()]
    if missing:
        raise DataError(f'Expected image files but {", ".join(missing)} does not exist. Check the path.')
    dataset = _dataset(config)
    return _files(_pipeline(dataset), paths) if paths else _first(dataset, count)


def _dataset(config: Config) -> Mapping[str, Any]:
    for name in LOADERS:
        if config.get(name):
            return config[name]['dataset']
    raise ConfigError(
        f'Expected a val_dataloader or test_dataloader in {config.filename} but got neither. Its pipeline prepares '
        'the images: add one.'
    )


def _pipeline(dataset: Mapping[str, Any]) -> list[Any]:
    """Return the pipeline of a dataset or of the first one inside a wrapper, without what reads annotations."""
    while not dataset.get('pipeline'):
        inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
        if inner is None:
            raise ConfigError(
                f'Expected a pipeline in the validation dataset but {dataset.get("type")} has none. Add one, or leave '
                'out IMAGES.'
            )
        dataset = inner
    return [step for step in copy.deepcopy(dataset['pipeline']) if 'Annotations' not in str(step.get('type'))]


def _files(pipeline: list[Any], paths: Sequence[str | Path]) -> Iterator[tuple[str, Any]]:
    transforms = Compose(pipeline)
    for number, path in enumerate(paths):
        try:
            item = transforms(dict(img_path=str(path), img_id=number, instances=[], seg_fields=[]))
        except Exception as error:  # decoders and a user's own transforms can fail in any way
            raise DataError(
                f'Expected an image that the validation pipeline reads but {path} gives {type(error).__name__}: '
                f'{error}. Give an image file, or leave out IMAGES for those of the validation set.'
            ) from error
        yield Path(path).name, item


def _first(settings: Mapping[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    dataset = DATASETS.build(copy.deepcopy(settings))
    if len(dataset) == 0:
        raise DataError('Expected images in the validation set but it has none. Check its paths, or name IMAGES.')
    for number in range(min(count, len(dataset))):
        item = dataset[number]
        samples = item.get('data_samples') if isinstance(item, Mapping) else None
        path = getattr(samples, 'img_path', None)
        yield (Path(path).name if path else f'image {number}'), item
