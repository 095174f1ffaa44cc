from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.loss_settings import check_losses


def model(head: dict[str, Any]) -> dict[str, Any]:
    return dict(model=dict(type='EncoderDecoder', decode_head=head))


def test_what_is_trained_is_no_finding() -> None:
    losses = [dict(type='DiceLoss', loss_name='loss_dice', loss_weight=3.0, class_weight=[0.0, 1.0])]
    head = dict(dropout_ratio=0.1, loss_decode=losses, assigner=dict(type='ATSSAssigner', topk=9), topk=0)
    assert says(check_losses, model(head)) == []
    assert says(check_losses, dict(model=dict(dropout_ratio=-1))) == says(check_losses, {}) == []


@pytest.mark.parametrize(
    ('head', 'level', 'where', 'message'),
    [
        (dict(loss_decode=[dict(loss_name='ce')]), 'error', 'loss_decode.0.loss_name', "write loss_name='loss_ce'"),
        (dict(loss_cls=dict(loss_weight=-2.0)), 'error', 'loss_cls.loss_weight', 'Write 2.0.'),
        (dict(loss_cls=dict(loss_weight=0.0)), 'warning', 'loss_cls.loss_weight', 'is not trained'),
        (dict(loss_cls=dict(class_weight=[0.0, 0])), 'error', 'loss_cls.class_weight', 'class_weight=None'),
        (dict(dropout_ratio=1.0), 'error', 'dropout_ratio', 'write 0.1'),
        (dict(assigner=dict(type='ATSSAssigner', topk=0)), 'error', 'assigner.topk', 'write 9'),
    ],
)
def test_what_is_not_trained(head: dict[str, Any], level: str, where: str, message: str) -> None:
    plain, student = model(head), dict(type='kdplugin.Distiller', student=model(head)['model'], teacher=dict(head))
    for config, path in ((plain, 'model'), (dict(model=student), 'model.student')):
        ((told_level, place, told),) = says(check_losses, config)
        assert (told_level, place) == (level, f'{path}.decode_head.{where}')
        assert message in told
