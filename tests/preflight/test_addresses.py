from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.addresses import check_addresses


def distiller(**model: Any) -> dict[str, Any]:
    return dict(model=dict(type='kdplugin.Distiller', **model))


@pytest.mark.parametrize(
    'config',
    [
        {}, dict(load_from='https://host/x.pth'), dict(load_from='torchvision://resnet50'), dict(load_from='a/b.pth'),
        dict(load_from='open-mmlab://detectron2/resnet50_caffe'), dict(load_from='s3://bucket/x.pth'),
        distiller(teacher=dict(checkpoint='http://host/x.pth')), distiller(teacher='x', teachers=5),
    ],
)  # fmt: skip
def test_addresses_that_are_read(config: dict[str, Any]) -> None:
    assert says(check_addresses, config) == []


@pytest.mark.parametrize(
    ('config', 'where', 'near'),
    [
        (dict(load_from='htps://host/x.pth'), 'load_from', "'https://'"),
        (distiller(teacher=dict(checkpoint='htpp://host/x.pth')), 'model.teacher.checkpoint', "'http://'"),
        (
            distiller(teachers=dict(a=dict(checkpoint='torchvison://r'))),
            'model.teachers.a.checkpoint',
            "'torchvision://'",
        ),
    ],
)
def test_addresses_that_nobody_reads(config: dict[str, Any], where: str, near: str) -> None:
    ((level, place, text),) = says(check_addresses, config)
    assert (level, place) == ('error', where)
    assert f'Did you mean {near}' in text
