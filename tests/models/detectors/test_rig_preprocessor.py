from __future__ import annotations

import orion_models as orion
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.errors import DataError

SETTINGS = {key: value for key, value in orion.PREPROCESSOR.items() if key != 'type'}


def rig_of(views: list[DetDataSample]) -> DetDataSample:
    rig = DetDataSample()
    rig.set_field(views, 'views', field_type='data')
    return rig


def samples(count: int) -> list[DetDataSample]:
    return [DetDataSample(metainfo=dict(img_shape=(20, 30), img_id=number)) for number in range(count)]


def test_rigs_are_what_their_views_are_to_mmdet() -> None:
    ours, theirs = MODELS.build(dict(SETTINGS, type='kdplugin.RigPreprocessor')), DetDataPreprocessor(**SETTINGS)
    images = torch.randint(0, 255, (4, 3, 20, 30), dtype=torch.uint8)
    views = samples(4)
    found = ours(dict(inputs=[images[:2], images[2:]], data_samples=[rig_of(views[:2]), rig_of(views[2:])]), True)
    expected = theirs(dict(inputs=list(images), data_samples=samples(4)), True)
    assert torch.equal(found['inputs'], expected['inputs'])
    assert [one.img_id for one in found['data_samples']] == [0, 1, 2, 3]
    assert all(one.batch_input_shape == (32, 32) for one in found['data_samples'])
    single = ours(dict(inputs=list(images), data_samples=samples(4)), True)
    assert torch.equal(single['inputs'], expected['inputs'])
    assert ours(dict(inputs=[images[:2]]))['inputs'].shape == (2, 3, 32, 32)


def test_a_sample_is_missing() -> None:
    ours = MODELS.build(dict(SETTINGS, type='kdplugin.RigPreprocessor'))
    with pytest.raises(DataError, match='Expected a data sample for each of 2 views but got 1'):
        ours(dict(inputs=[torch.zeros(2, 3, 20, 30)], data_samples=[rig_of(samples(1))]))
