from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.data_size import check_data_size

LINEAR = dict(type='LinearLR', by_epoch=False, begin=0, end=500)


def config(drop_last: bool = False, **more: Any) -> dict[str, Any]:
    """Return one of 12 epochs in batches of 16."""
    return dict(
        train_dataloader=dict(batch_size=16, drop_last=drop_last), train_cfg=dict(by_epoch=True, max_epochs=12), **more
    )


@pytest.mark.parametrize(('images', 'level'), [(15, 1), (16, 0), (17, 0)])
def test_a_batch_is_left(images: int, level: int) -> None:
    found = says(lambda found, settings: check_data_size(found, settings, images), config(drop_last=True))
    assert [(one, where) for one, where, _ in found] == [('error', 'train_dataloader.drop_last')] * level
    assert all('batch of 16 but there are 15, and drop_last=True leaves none' in text for _, _, text in found)
    assert says(lambda found, settings: check_data_size(found, settings, images), config()) == []


@pytest.mark.parametrize(('images', 'drop_last', 'told'), [(657, False, False), (655, True, True)])
def test_a_warm_up_ends_within_the_training(images: int, drop_last: bool, told: bool) -> None:
    """500 iterations are 12 epochs of 41.7: 657 images make 42, and 655 whose last batch is dropped 40."""
    settings = config(drop_last, param_scheduler=[LINEAR, dict(type='MultiStepLR', by_epoch=True, end=600)])
    found = says(lambda found, settings: check_data_size(found, settings, images), settings)
    assert [(level, where) for level, where, _ in found] == [('warning', 'param_scheduler.0.end')] * told
    assert all('480 iterations (655 images, batch 16, 12 epochs) but got end=500' in text for _, _, text in found)
    assert all('to about 24.' in text for _, _, text in found)


def test_a_pair_has_its_weight_before_the_end() -> None:
    pair = dict(tap='neck', loss=dict(type='kdplugin.CosineLoss'), weight=1.0)
    pairs = dict(slow=dict(pair, warmup=12), quick=dict(pair, warmup=11), epochs=dict(pair, warmup=12, by_epoch=True))
    settings = config(model=dict(type='kdplugin.Distiller', pairs=pairs))
    found = says(lambda found, settings: check_data_size(found, settings, 8), settings)
    assert [(level, where) for level, where, _ in found] == [('warning', 'model.pairs.slow.warmup')]


def test_iterations_that_are_given_need_no_images() -> None:
    settings = config(param_scheduler=[LINEAR])
    settings['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=10)
    assert says(lambda found, settings: check_data_size(found, settings, 8), settings) == []
