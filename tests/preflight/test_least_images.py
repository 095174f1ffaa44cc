from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from preflight_says import says

import kdplugin.registry  # noqa: F401 - makes types with the prefix 'kdplugin.' known
from kdplugin.preflight.least_images import check_least_images, least_images


def config(loss: str, batch: Any) -> dict[str, Any]:
    pair = dict(tap='neck', loss=dict(type=loss), weight=1.0)
    return dict(model=dict(type='kdplugin.Distiller', pairs=dict(a=pair)), train_dataloader=dict(batch_size=batch))


@pytest.mark.parametrize(('batch', 'told'), [(1, True), (2, True), (3, False), (None, False)])
def test_relations_need_three_images(batch: Any, told: bool) -> None:
    found = says(check_least_images, config('kdplugin.RKDLoss', batch))
    assert [(level, where) for level, where, _ in found] == [('error', 'model.pairs.a.loss')] * told
    assert all('batches of 3 images or more on each device, because kdplugin.RKDLoss' in text for *_, text in found)
    assert all(f'got batch_size={batch}: its value is 0' in text for _, _, text in found)


def test_other_losses_need_one() -> None:
    assert least_images(Config(config('kdplugin.RKDLoss', 1))) == 3
    assert least_images(Config(config('kdplugin.CWDLoss', 1))) == 1
    assert least_images(Config(config('kdplugin.Gone', 1))) == 1
    assert least_images(Config(dict(model=dict(type='EncoderDecoder')))) == 1
    assert says(check_least_images, config('kdplugin.CWDLoss', 1)) == []
