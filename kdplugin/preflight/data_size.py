"""Are there enough images for what the config counts in iterations?"""

from __future__ import annotations

import contextlib
import math

from mmengine.config import Config

from kdplugin.distill.pairs import parse_weight
from kdplugin.errors import ConfigError
from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.pair_weights import pair_entries
from kdplugin.preflight.run_length import RunLength, is_count


def check_data_size(found: Findings, config: Config, images: int) -> None:
    """There is a batch, and warm-ups in iterations end within a training of epochs, on one device at least.

    Args:
        found: collects the findings.
        config: of the training.
        images: of the training dataset.
    """
    loader, length = config.train_dataloader, RunLength.of(config)
    batch = loader.get('batch_size')
    if not is_count(batch) or batch < 1:
        return
    if loader.get('drop_last') and images < batch:
        if any(one.where == 'train_dataloader.drop_last' for one in found.errors):
            return  # counted without a dataset
        found.error(
            'train_dataloader.drop_last',
            f'Expected images for a batch of {batch} but there are {images}, and drop_last=True leaves none of them. '
            'Lower batch_size or write drop_last=False.',
        )
        return
    if length is None or length.epochs is None:
        return
    total = (images // batch if loader.get('drop_last') else math.ceil(images / batch)) * length.epochs
    training = f'{total} iterations ({images} images, batch {batch}, {length.epochs} epochs)'
    _check_schedulers(found, config, total, training)
    _check_pairs(found, config, total, training)


def _check_schedulers(found: Findings, config: Config, total: int, training: str) -> None:
    schedulers = config.get('param_scheduler')
    for part in typed_below(schedulers, 'param_scheduler', ()) if schedulers else ():
        end = part.settings.get('end')
        if part.settings.get('by_epoch', True) is False and is_count(end) and end > total:
            found.warning(
                f'{part.path}.end',
                f'Expected a schedule within {training} but got end={end}. The learning rate never gets where it '
                f'should: lower end, for a warm-up to about {max(total // 20, 1)}.',
            )


def _check_pairs(found: Findings, config: Config, total: int, training: str) -> None:
    for name, entry in pair_entries(config):
        with contextlib.suppress(ConfigError):  # told by check_pair
            weight = parse_weight(name, entry)
            if not weight.by_epoch and weight.warmup >= max(total, 1):
                found.warning(
                    f'model.pairs.{name}.warmup',
                    f'Expected a warm-up within {training} but got {weight.warmup}. The pair never has its whole '
                    'weight: lower it.',
                )
