from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample

from kdplugin.errors import DataError
from kdplugin.models.detectors.rigs import fold_views, views_of


def test_views_become_images_in_order() -> None:
    images = torch.arange(12.0).view(2, 2, 3, 1, 1)
    folded, samples = fold_views(images, [[1, 2], [3, 4]])
    assert torch.equal(folded[:, 0, 0, 0], torch.tensor([0.0, 3.0, 6.0, 9.0]))
    assert samples == [1, 2, 3, 4]
    flat = [DetDataSample(metainfo=dict(img_id=number)) for number in range(4)]
    assert fold_views(images, flat)[1] == flat


def test_single_images_stay() -> None:
    images, samples = torch.zeros(2, 3, 4, 4), [DetDataSample(), DetDataSample()]
    assert fold_views(images, samples)[0] is images
    assert fold_views(images, samples)[1] == samples
    assert fold_views(images, []) == (images, None)


def test_a_rigs_sample_holds_those_of_its_views() -> None:
    rig, views = DetDataSample(), [DetDataSample(), DetDataSample()]
    rig.set_field(views, 'views', field_type='data')
    assert views_of(rig) == views
    assert views_of(views[0]) == [views[0]]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match=r'Expected images .* but got \(3, 4, 4\)'):
        fold_views(torch.zeros(3, 4, 4), None)
    with pytest.raises(DataError, match='for each of 4 images but got 3'):
        fold_views(torch.zeros(2, 2, 3, 4, 4), [DetDataSample()] * 3)
