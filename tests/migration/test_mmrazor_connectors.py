from __future__ import annotations

from typing import Any

import pytest
import torch

from kdplugin.migration.mmrazor_connectors import through_connector
from kdplugin.migration.mmrazor_losses import NoCounterpartError

SHAPE = (2, 8, 5, 7)
CONV = dict(type='ConvModuleConnector', in_channel=8, out_channel=12)
MGD = dict(type='mmrazor.MGDConnector', student_channels=8, teacher_channels=12, lambda_mgd=0.45)


@pytest.mark.parametrize(
    ('changes', 'kind', 'message'),
    [
        (dict(act_cfg=None), 'kept', 'its connector was a 1x1 convolution; so is the adapter here'),
        (dict(), 'changed', 'a 1x1 convolution and activation; the adapter here is a 1x1 convolution with bias alone'),
        (dict(act_cfg=None, norm_cfg=dict(type='BN')), 'changed', 'a 1x1 convolution and norm; the adapter'),
        (dict(act_cfg=None, out_channel=8), 'changed', 'there is none here, because both sides have as many channels'),
    ],
)
def test_a_pointwise_convolution_is_the_adapter(changes: dict[str, Any], kind: str, message: str) -> None:
    converted = through_connector(dict(type='PKDLoss', loss_weight=6), {**CONV, **changes}, SHAPE)
    assert converted.adapter is not None
    assert converted.adapter[0] == kind
    assert message in converted.adapter[1]
    assert (converted.settings, converted.factor) == (dict(loss=dict(type='kdplugin.PKDLoss')), 6)


def test_factors_count_the_channels_behind_the_connector() -> None:
    converted = through_connector(dict(type='L2Loss', normalize=False), CONV, SHAPE)
    assert converted.factor == 12 * 5 * 7


def test_mgd_is_one_pair_of_the_same_value() -> None:
    converted = through_connector(dict(type='MGDLoss', alpha_mgd=3e-5), MGD, SHAPE)
    assert converted.settings == dict(type='kdplugin.MGD', mask_ratio=0.45)
    generated, teacher = torch.randn(2, 12, 5, 7), torch.randn(2, 12, 5, 7)
    theirs = 3e-5 * (generated - teacher).pow(2).sum() / 2
    ours = (generated - teacher).square().mean(1).mean()  # generation_error, then the mean over positions
    assert float(converted.factor * ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize(
    ('connector', 'message'),
    [
        (dict(CONV, kernel_size=3, padding=1), r'a 1x1 convolution at most but got ConvModuleConnector\.'),
        ([CONV, CONV], r'but got several modules\.'),
        (dict(type='NormConnector', in_channels=8), r'but got NormConnector\. Adapters are'),
        (dict(MGD, mask_on_channel=True), r'but got PKDLoss, mask_on_channel=True\.'),
        (MGD, r'but got PKDLoss, mask_on_channel=False\.'),
    ],
)
def test_other_connectors_have_no_counterpart(connector: Any, message: str) -> None:
    with pytest.raises(NoCounterpartError, match=message):
        through_connector(dict(type='PKDLoss'), connector, SHAPE)
