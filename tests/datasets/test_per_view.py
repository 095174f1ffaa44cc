from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS, init_default_scope

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.errors import DataError

PACK = dict(type='PackDetInputs', meta_keys=('img_shape', 'place'))


@TRANSFORMS.register_module(force=True)
class MakeView(BaseTransform):
    """An image whose pixels are the view's number; number 9 is dropped."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        number = results['number']
        image = np.full((4, results.get('width', 6), 3), number, dtype=np.uint8)
        return None if number == 9 else {**results, 'img': image, 'img_shape': image.shape[:2]}


def per_view(**settings: Any) -> Any:
    init_default_scope('mmdet')
    return TRANSFORMS.build(
        dict(type='kdplugin.PerView', transforms=[dict(type='mmengine.MakeView'), PACK], **settings)
    )


def test_each_view_runs_through_the_pipeline_with_what_is_shared() -> None:
    rig = dict(views=[dict(number=1), dict(number=2)], place='Town03', sample_idx=5)
    found = per_view(shared=['place'])(rig)
    assert found['inputs'].shape == (2, 3, 4, 6)
    assert found['inputs'][:, 0, 0, 0].tolist() == [1, 2]
    assert [view.place for view in found['data_samples'].views] == ['Town03', 'Town03']


def test_what_cannot_be_a_rig_is_told() -> None:
    with pytest.raises(DataError, match='Expected views of a rig but got none'):
        per_view()(dict(img_path='a.jpg'))
    with pytest.raises(DataError, match='its pipeline dropped one'):
        per_view()(dict(views=[dict(number=1, place=''), dict(number=9)]))
    with pytest.raises(DataError, match=r'in one size but got \[\(3, 4, 6\), \(3, 4, 8\)\]'):
        per_view()(dict(views=[dict(number=1, place=''), dict(number=2, place='', width=8)]))
