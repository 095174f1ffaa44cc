from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.addresses import check_addresses, check_whole_weights


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


def weights(teacher: str | None, load: str | None = None) -> dict[str, Any]:
    return dict(load_from=load, model=dict(type='kdplugin.Distiller', student={}, teacher=dict(checkpoint=teacher)))


@pytest.mark.parametrize(
    ('teacher', 'load'), [('a.pth', None), ('https://a.com/b.pth', 'http://a.com/c.pth'), (None, 'models/d.pth')]
)
def test_addresses_of_whole_models(teacher: str | None, load: str | None) -> None:
    assert says(check_whole_weights, weights(teacher, load)) == []
    assert says(check_whole_weights, dict(model=dict(type='GFL'), load_from=load)) == []


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('torchvision://resnet101', 'weights of a backbone belong into its init_cfg'),
        ('open-mmlab://resnet101_caffe', 'a backbone that classifies'),
    ],
)
def test_addresses_that_lead_elsewhere(address: str, message: str) -> None:
    for settings, where in ((weights(address), 'model.teacher.checkpoint'), (weights(None, address), 'load_from')):
        ((level, place, told),) = says(check_whole_weights, settings)
        assert (level, place) == ('error', where)
        assert message in told
    model = dict(type='kdplugin.Distiller', student={}, teachers=dict(old=dict(checkpoint=address)))
    assert [where for _, where, _ in says(check_whole_weights, dict(model=model))] == ['model.teachers.old.checkpoint']
