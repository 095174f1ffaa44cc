"""Are there as many images in a batch as a loss compares with each other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import mmengine.registry as roots
from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.pair_weights import pair_entries
from kdplugin.preflight.registries import find_type
from kdplugin.preflight.run_length import is_count


def least_images(config: Config) -> int:
    """Return how many images of a batch the losses of a distillation need."""
    return max((number for _, _, number in _needs(config)), default=1)


def _needs(config: Config) -> Iterator[tuple[str, str, int]]:
    """Yield the name of each pair, its loss, and the images that this needs."""
    for name, entry in pair_entries(config):
        loss = entry.get('loss')
        kind = loss.get('type') if isinstance(loss, Mapping) else None
        yield name, str(kind), getattr(find_type(kind, (roots.MODELS,), None), 'least_images', 1) if kind else 1


def check_least_images(found: Findings, config: Config) -> None:
    """A batch on one device has the images that each loss compares."""
    loader = config.get('train_dataloader')
    batch = loader.get('batch_size') if isinstance(loader, Mapping) else None
    if not is_count(batch):
        return
    for name, kind, number in _needs(config):
        if 1 <= batch < number:
            found.error(
                f'model.pairs.{name}.loss',
                f'Expected batches of {number} images or more on each device, because {kind} compares them, but got '
                f'batch_size={batch}: its value is 0. Raise batch_size or take another loss.',
            )
