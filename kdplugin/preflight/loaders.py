"""How data is read: sizes of batches, workers, samplers that end, training and validation apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.data import datasets_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.run_length import RunLength
from kdplugin.preflight.samples import split_of

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
ENDLESS = ('InfiniteSampler', 'MultiDataSampler_', 'GroupMultiSourceSampler', 'MultiSourceSampler')


def check_loaders(found: Findings, config: Config) -> None:
    """The settings of every data loader fit together and its loop."""
    for name in LOADERS:
        loader = config.get(name)
        if not isinstance(loader, Mapping):
            continue
        _check_sizes(found, name, loader)
        _check_workers(found, name, loader)
        _check_sampler(found, name, loader, RunLength.of(config))
        if 'dataset' not in loader:
            found.error(f'{name}.dataset', f'Expected a dataset in {name} but got none. Write dataset=dict(type=...).')
        elif isinstance(loader.get('sampler'), Mapping) and 'type' not in loader['sampler']:
            found.error(
                f'{name}.sampler.type',
                f"Expected a type of sampler but got {list(loader['sampler'])} alone. Write type='DefaultSampler'.",
            )
        elif 'sampler' in loader and loader['sampler'] is None and 'batch_sampler' not in loader:
            found.error(
                f'{name}.sampler',
                'Expected a sampler but got None. Images would come in order, on every GPU the same: write '
                f"dict(type='DefaultSampler', shuffle={name == 'train_dataloader'}).",
            )
        elif 'sampler' not in loader and 'batch_sampler' not in loader:
            found.error(
                f'{name}.sampler',
                "Expected a sampler but got none. Write sampler=dict(type='DefaultSampler', shuffle="
                f'{name == "train_dataloader"}).',
            )
        if name != 'train_dataloader' and loader.get('drop_last'):
            found.warning(
                f'{name}.drop_last',
                'Expected a validation of every image but got drop_last=True. The last ones count as misses: write '
                'drop_last=False.',
            )
    _check_seed_hook(found, config)
    _check_apart(found, config)
    _check_splits(found, config)
    _check_modes(found, config)


def _check_seed_hook(found: Findings, config: Config) -> None:
    """Epochs are shuffled anew by the hook that seeds the sampler."""
    hooks, length = config.get('default_hooks'), RunLength.of(config)
    off = isinstance(hooks, Mapping) and 'sampler_seed' in hooks and hooks['sampler_seed'] is None
    if off and length is not None and length.by_epoch:
        found.warning(
            'default_hooks.sampler_seed',
            'Expected the hook that shuffles each epoch anew but got None. Every epoch has the same order: write '
            "sampler_seed=dict(type='DistSamplerSeedHook').",
        )


def _check_sizes(found: Findings, name: str, loader: Mapping[str, Any]) -> None:
    for key, least in (('batch_size', 1), ('num_workers', 0), ('prefetch_factor', 1)):
        value = loader.get(key)
        if value is None:
            if key == 'batch_size' and 'batch_sampler' not in loader:
                found.error(f'{name}.{key}', 'Expected a batch_size but got none. Give images per GPU.')
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            found.error(f'{name}.{key}', f'Expected a whole number >= {least} but got {value!r}. Correct {key}.')


def _check_workers(found: Findings, name: str, loader: Mapping[str, Any]) -> None:
    if loader.get('num_workers', 0) != 0:
        return
    if loader.get('persistent_workers'):
        found.error(
            f'{name}.persistent_workers',
            'Expected persistent_workers=False beside num_workers=0 but got True. Set one of them: torch refuses both.',
        )
    if loader.get('prefetch_factor') is not None:
        found.error(
            f'{name}.prefetch_factor',
            f'Expected no prefetch_factor beside num_workers=0 but got {loader["prefetch_factor"]}. Remove it.',
        )


def _check_sampler(found: Findings, name: str, loader: Mapping[str, Any], length: RunLength | None) -> None:
    sampler = loader.get('sampler')
    if not isinstance(sampler, Mapping):
        return
    endless, training = kind_of(sampler) in ENDLESS, name == 'train_dataloader'
    if endless and not training:
        found.error(
            f'{name}.sampler',
            f'Expected a sampler that ends but got {kind_of(sampler)}. Validation would never end: write '
            "dict(type='DefaultSampler', shuffle=False).",
        )
    if endless and training and length is not None and length.by_epoch:
        found.error(
            f'{name}.sampler',
            f'Expected a sampler that ends, for a training of {length}, but got {kind_of(sampler)}. The first epoch '
            "would never end: write dict(type='DefaultSampler', shuffle=True), or count iterations.",
        )
    if training and sampler.get('shuffle') is False:
        found.warning(
            f'{name}.sampler.shuffle', 'Expected shuffled training data but got shuffle=False. Write shuffle=True.'
        )
    if not training and sampler.get('shuffle') is True:
        found.warning(f'{name}.sampler.shuffle', 'Expected validation in order but got shuffle=True. Write False.')


def _check_apart(found: Findings, config: Config) -> None:
    """Validation does not run on the training data."""
    sets = {name: [_identity(one) for one in datasets_of(config, name)] for name in LOADERS[:2]}
    if any(one in sets['train_dataloader'] for one in sets['val_dataloader'] if any(one[1:])):
        found.warning(
            'val_dataloader.dataset',
            'Expected other data than that of the training but got the same. The metric says nothing about new images: '
            'correct ann_file or data_prefix.',
        )


def _check_splits(found: Findings, config: Config) -> None:
    """Training does not read what is called validation while that reads what is called training."""
    for key in ('ann_file', 'data_prefix'):
        train, val = ({split_of(_text(one.get(key))) for one in datasets_of(config, name)} for name in LOADERS[:2])
        if 'train' in val and train & {'val', 'test'} and 'train' not in train:
            found.warning(
                f'train_dataloader.dataset.{key}',
                f'Expected training data called train and validation data called val but got {sorted(train)} and '
                f'{sorted(val)}. Swap them.',
            )


def _text(value: Any) -> str:
    return ' '.join(map(str, value.values())) if isinstance(value, Mapping) else str(value or '')


def _check_modes(found: Findings, config: Config) -> None:
    """mmdet leaves images without boxes out of a dataset unless it is in test mode, and boxes of a crowd besides."""
    if config.get('default_scope') != 'mmdet':
        return
    for name in LOADERS[:2]:
        for one in datasets_of(config, name):
            training, tests = name == 'train_dataloader', bool(one.get('test_mode', False))
            if training == tests and 'Coco' in kind_of(one):
                found.warning(
                    f'{name}.dataset.test_mode',
                    f'Expected test_mode={not training} in {name} but got {tests}. '
                    + ('Images without labels would be trained on' if training else 'Images would be left out')
                    + f': write test_mode={not training}.',
                )


def _identity(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(dataset.get(key) or '') for key in ('type', 'data_root', 'ann_file', 'data_prefix', 'indices'))
