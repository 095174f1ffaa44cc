"""The rest of mmdet's dense heads gives what the whole head gives.

N image, C channel, H W position.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_fixtures import build, detector, stir
from method_models import DENSE, GN, dense
from torch import Tensor, nn

from kdplugin.distill.methods.cross_head import (
    check_head,
    flat_boxes,
    flat_cells,
    flat_distributions,
    flat_scores,
    part_of_teacher,
    predicts_distributions,
    run_rest,
)
from kdplugin.errors import ConfigError
from kdplugin.weights.reading.io import hash_tensors


def head_of(kind: str, **settings: Any) -> Any:
    return stir(build(dense(kind, **settings), seed=3)).eval().bbox_head


def pyramid(channels: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, size, size, generator=generator) for size in (8, 4, 2, 1, 1)]


def tower(head: Any, name: str, features: list[Tensor], convs: int) -> list[Tensor]:
    return [nn.Sequential(*list(getattr(head, name))[:convs])(level) for level in features]


@pytest.mark.parametrize('kind', DENSE)
@torch.no_grad()
def test_the_rest_of_a_head_continues_its_own_features(kind: str) -> None:
    head, features = head_of(kind, norm=dict(type='BN') if kind == 'RetinaNet' else GN), pyramid()
    before, modules = hash_tensors(head.state_dict()), list(head.modules())
    expected = head(tuple(features))
    for convs in (0, 1, 2):
        given = [tower(head, name, features, convs) for name in ('cls_convs', 'reg_convs')]
        for ours, theirs in zip(run_rest(head, convs, given), expected, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other)
    assert hash_tensors(head.state_dict()) == before
    assert list(head.modules()) == modules


@torch.no_grad()
def test_each_tower_gets_its_own_features() -> None:
    head, classes, boxes = head_of('ATSS'), pyramid(), pyramid(seed=1)
    crossed = run_rest(head, 0, [classes, boxes])
    assert torch.equal(crossed[0][0], head(tuple(classes))[0][0])
    assert torch.equal(crossed[1][2], head(tuple(boxes))[1][2])
    assert torch.equal(crossed[2][1], head(tuple(boxes))[2][1])


@pytest.mark.parametrize('kind', DENSE)
@torch.no_grad()
def test_predictions_come_in_the_order_of_mmdets_own(kind: str) -> None:
    """Without limits, mmdet predicts for one image, among others, our boxes that lie inside it."""
    from mmengine.config import ConfigDict

    head, features = head_of(kind), [level[:1] for level in pyramid()]
    outs = head(tuple(features))
    scores = flat_scores(head, outs[0]).sigmoid()
    assert len(scores) == sum(level.shape[2] * level.shape[3] for level in features) * head.num_base_priors
    assert predicts_distributions(head) == (kind == 'GFL')
    if kind == 'GFL':
        assert flat_distributions(head, outs[1]).shape == (len(scores), 4 * 9)
        return
    boxes = flat_boxes(head, outs[1])
    cfg = ConfigDict(nms_pre=-1, score_thr=0.0, min_bbox_size=-1, nms=dict(type='nms', iou_threshold=1.0))
    meta = [dict(img_shape=(10**6, 10**6), scale_factor=(1.0, 1.0))]
    (found,) = head.predict_by_feat(*outs, batch_img_metas=meta, cfg=cfg, rescale=False, with_nms=False)
    centerness = torch.cat([level.flatten() for level in outs[2]]).sigmoid()[:, None] if len(outs) == 3 else 1.0
    inside = (boxes > 0).all(1)
    assert int(inside.sum()) > 10
    ours = torch.cat([boxes, (scores * centerness).amax(1, keepdim=True)], 1)[inside]
    theirs = torch.cat([found.bboxes, found.scores[:, None]], 1)
    distance = (ours[:, None] - theirs[None]).abs()
    assert (distance.amax(2).amin(1) < 1e-3).all()


def test_a_part_of_the_teacher_goes_where_the_tensors_are() -> None:
    teacher: Any = SimpleNamespace(module=nn.ModuleDict(dict(head=nn.Linear(2, 2), body=nn.Linear(2, 2))))
    assert part_of_teacher(teacher, 'head', torch.zeros(1)) is teacher.module['head']
    moved = part_of_teacher(teacher, 'head', torch.zeros(1, device='meta'))
    assert moved is teacher.module['head']
    assert [str(part.weight.device) for part in teacher.module.values()] == ['meta', 'cpu']


def test_cells_are_repeated_for_each_anchor() -> None:
    cells = torch.tensor([[[True, False]]])
    like = [torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 1)]
    assert flat_cells([None, None], like, 2) is None
    assert flat_cells([cells, None], like, 2).tolist() == [True, True, False, False, True, True]


def test_heads_that_cannot_be_cut_are_an_error() -> None:
    head = head_of('GFL')
    for convs in (0, 1, 2):
        check_head(head, convs, 'p')
    with pytest.raises(
        ConfigError, match=r"Expected convs from 0 to 2 in pair 'p' but got 3: the towers of the teacher"
    ):
        check_head(head, 3, 'p')
    softmax = head_of('ATSS')
    softmax.use_sigmoid_cls = False
    nested = head_of('GFL')
    nested.cls_convs = nn.ModuleList([nested.cls_convs])
    for other in (build(detector()).neck, softmax, nested):
        with pytest.raises(
            ConfigError, match=r"Expected a head with the towers .* in pair 'p' but got .*\. CrossKD knows"
        ):
            check_head(other, 1, 'p')
