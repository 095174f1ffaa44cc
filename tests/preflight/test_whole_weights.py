from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.whole_weights import check_whole_weights


def config(teacher: str | None, load: str | None = None) -> dict[str, Any]:
    return dict(load_from=load, model=dict(type='kdplugin.Distiller', student={}, teacher=dict(checkpoint=teacher)))


@pytest.mark.parametrize(
    ('teacher', 'load'), [('a.pth', None), ('https://a.com/b.pth', 'http://a.com/c.pth'), (None, 'models/d.pth')]
)
def test_addresses_of_whole_models(teacher: str | None, load: str | None) -> None:
    assert says(check_whole_weights, config(teacher, load)) == []
    assert says(check_whole_weights, dict(model=dict(type='GFL'), load_from=load)) == []


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('torchvision://resnet101', 'weights of a backbone belong into its init_cfg'),
        ('open-mmlab://resnet101_caffe', 'a backbone that classifies'),
    ],
)
def test_addresses_that_lead_elsewhere(address: str, message: str) -> None:
    for settings, where in ((config(address), 'model.teacher.checkpoint'), (config(None, address), 'load_from')):
        ((level, place, told),) = says(check_whole_weights, settings)
        assert (level, place) == ('error', where)
        assert message in told
    model = dict(type='kdplugin.Distiller', student={}, teachers=dict(old=dict(checkpoint=address)))
    assert [where for _, where, _ in says(check_whole_weights, dict(model=model))] == ['model.teachers.old.checkpoint']
