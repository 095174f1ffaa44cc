"""What a checkpoint measured, kept beside it: measured once, read by every run that it teaches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from kdplugin.checkpoint_schemes import local_file
from kdplugin.distill.settings import plain
from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import hash_file, write_text

SUFFIX = '.metrics.json'


@dataclass(frozen=True)
class Measurement:
    """One test of one file on one data set.

    Args:
        sha256: of the checkpoint.
        data: hash of the test data's settings, its annotation file and its evaluator.
        where: the data as a person calls it.
        metrics: as the test loop returns them.
    """

    sha256: str
    data: str
    where: str
    metrics: dict[str, float]

    def __str__(self) -> str:
        """Return for example 'mIoU 82.37, aAcc 95.1 on data/digit_scenes (BaseSegDataset)'."""
        values = ', '.join(f'{name.rsplit("/", 1)[-1]} {value:.4g}' for name, value in self.metrics.items())
        return f'{values} on {self.where}'


def data_key(config: Config) -> tuple[str, str]:
    """Return the hash of what a config tests on, and how a person calls it."""
    dataset = plain((config.get('test_dataloader') or {}).get('dataset') or {})
    root = dataset.get('data_root') or ''
    annotations = Path(root, dataset['ann_file']) if dataset.get('ann_file') else None
    content = hash_file(annotations) if annotations is not None and annotations.is_file() else ''
    text = json.dumps([dataset, plain(config.get('test_evaluator')), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16], f'{root or "its data"} ({dataset.get("type")})'


def write_measurement(checkpoint: str | Path, key: tuple[str, str], metrics: Mapping[str, float]) -> Measurement:
    """Write what a checkpoint measured to ``<checkpoint>.metrics.json``, beside what is there of other data.

    Args:
        checkpoint: a local file.
        key: what ``data_key`` gave before the test.
        metrics: of the test.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    new = Measurement(hash_file(checkpoint), *key, numbers)
    others = [one for one in recall(checkpoint) if one.data != new.data]
    write_text(f'{checkpoint}{SUFFIX}', json.dumps([vars(one) for one in (*others, new)], indent=1))
    return new


def recall(checkpoint: str | Path, sha256: str | None = None, data: str | None = None) -> list[Measurement]:
    """Return what is kept beside a checkpoint, unless the file has changed since.

    Args:
        checkpoint: as in a teacher's config; one that is not on this machine has none.
        sha256: of it, where it is known already.
        data: the hash that ``data_key`` gives, for measurements on these data alone.

    Raises:
        CheckpointError: the file beside it is damaged.
    """
    try:
        file = Path(f'{local_file(str(checkpoint))}{SUFFIX}')
    except CheckpointError:
        return []
    if not file.is_file():
        return []
    try:
        kept = [Measurement(**entry) for entry in json.loads(file.read_text())]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f'Expected measurements in {file} but got {error}. Delete it and test again.') from None
    sha256 = sha256 or hash_file(str(file).removesuffix(SUFFIX))
    return [one for one in kept if one.sha256 == sha256 and data in (None, one.data)]
