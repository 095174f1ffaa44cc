"""Factors between MMRazor's losses and ours: MMRazor's formulas written out here, in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.migration.mmrazor_losses import LOSSES, NoCounterpartError, convert_loss, known_loss

MAP, VECTOR = (3, 5, 4, 6), (4, 7)


def theirs_kl(reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: 2 * 9.0 * F.kl_div((s / 3).log_softmax(1), (t / 3).softmax(1), reduction=reduction)


def theirs_pkd(s: Tensor, t: Tensor) -> Tensor:
    def norm(x: Tensor) -> Tensor:
        rows = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1)
        return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)

    return 6 * F.mse_loss(norm(s), norm(t)) / 2


def theirs_cwd(s: Tensor, t: Tensor) -> Tensor:
    ours, log, soft = (
        (s.flatten(0, 1).flatten(1) / 4).log_softmax(1),
        *(f(t.flatten(0, 1).flatten(1) / 4) for f in (lambda x: x.log_softmax(1), lambda x: x.softmax(1))),
    )
    return 3 * 16 * (soft * (log - ours)).sum() / (s.shape[0] * s.shape[1])


def theirs_at(s: Tensor, t: Tensor) -> Tensor:
    ours, their = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in (s, t))
    return 7 * (ours - their).pow(2).mean()


def theirs_dist(s: Tensor, t: Tensor) -> Tensor:
    def relation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    p, q = (s / 2).softmax(1), (t / 2).softmax(1)
    return 2 * 4 * (0.5 * relation(p, q) + 1.5 * relation(p.T, q.T))


def theirs_distances(s: Tensor, t: Tensor) -> Tensor:
    def distances(x: Tensor) -> Tensor:
        found = torch.cdist(x, x)
        return found / found[found > 1e-5].mean()

    return 25 * F.smooth_l1_loss(distances(s), distances(t))


def theirs_angles(s: Tensor, t: Tensor) -> Tensor:
    def angles(x: Tensor) -> Tensor:
        sides = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), dim=2)
        return torch.bmm(sides, sides.transpose(1, 2))

    return 50 * F.smooth_l1_loss(angles(s), angles(t))


CASES: list[tuple[dict[str, Any], tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = [
    (dict(type='ChannelWiseDivergence', tau=4, loss_weight=3), MAP, theirs_cwd),
    (dict(type='PKDLoss', loss_weight=6), MAP, theirs_pkd),
    (dict(type='KLDivergence', tau=3, loss_weight=2), MAP, theirs_kl('batchmean')),
    (dict(type='KLDivergence', tau=3, loss_weight=2), VECTOR, theirs_kl('batchmean')),
    (dict(type='KLDivergence', tau=3, loss_weight=2, reduction='mean'), MAP, theirs_kl('mean')),
    (dict(type='KLDivergence', tau=3, loss_weight=2, reduction='sum'), MAP, theirs_kl('sum')),
    (dict(type='DISTLoss', tau=2, inter_loss_weight=0.5, intra_loss_weight=1.5, loss_weight=2), VECTOR, theirs_dist),
    (dict(type='L1Loss', loss_weight=2), MAP, lambda s, t: 2 * F.l1_loss(s, t)),
    (dict(type='L1Loss', size_average=False), MAP, lambda s, t: F.l1_loss(s, t, reduction='sum')),
    (dict(type='L2Loss', normalize=False), MAP, lambda s, t: (s - t).pow(2).sum() / 3),
    (dict(type='L2Loss', normalize=False, div_element=True), MAP, lambda s, t: (s - t).pow(2).mean()),
    (dict(type='ATLoss', loss_weight=7), MAP, theirs_at),
    (dict(type='DistanceWiseRKD', with_l2_norm=False), VECTOR, theirs_distances),
    (dict(type='mmrazor.AngleWiseRKD', with_l2_norm=False), VECTOR, theirs_angles),
]


@pytest.mark.parametrize(('settings', 'shape', 'theirs'), CASES, ids=[str(case[0]) for case in CASES])
def test_factor_times_our_loss_is_theirs(
    settings: dict[str, Any], shape: tuple[int, ...], theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=generator) * 2 for _ in range(2))
    converted = convert_loss(settings, shape)
    ours = MODELS.build(converted.settings['loss'])(student, teacher)
    assert float(converted.factor * ours) == pytest.approx(float(theirs(student, teacher)), rel=2e-5)
    assert bool(converted.why) == (converted.factor != settings.get('loss_weight', 1.0))


def test_every_loss_that_stands_alone_has_a_case() -> None:
    assert {case[0]['type'].removeprefix('mmrazor.') for case in CASES} == LOSSES.keys() - {'MGDLoss'}


@pytest.mark.parametrize(
    ('settings', 'shape', 'message'),
    [
        (dict(type='FBKDLoss'), MAP, r'Expected a loss that kdplugin has but got FBKDLoss\..* FGD compares'),
        (dict(type='CWDLos'), MAP, r"got CWDLos\. Did you mean .* Choose another loss\."),
        (dict(type='PKDLoss', resize_stu=False), MAP, r'got resize_stu=False\.'),
        (dict(type='KLDivergence', reduction='none'), MAP, r"gives one number but got reduction='none'"),
        (dict(type='KLDivergence', teacher_detach=False), MAP, r'teacher_detach=False\. The teacher is never'),
        (dict(type='DISTLoss'), MAP, r'Expected DISTLoss on logits \(N, C\) but got a map\.'),
        (dict(type='L1Loss', reduction='batchmean'), MAP, r"got reduction='batchmean'\. Set 'mean' or 'sum'\."),
        (dict(type='L2Loss'), MAP, r'features as they are but got normalize=True\.'),
        (dict(type='L2Loss', normalize=False, dist=True), MAP, r'features as they are but got dist=True\.'),
        (dict(type='DistanceWiseRKD'), VECTOR, r'as they are but got with_l2_norm=True\.'),
        (dict(type='AngleWiseRKD', with_l2_norm=False), MAP, r'as they are but got a map \(3, 5, 4, 6\)\.'),
        (dict(type='MGDLoss'), MAP, r'Expected MGDLoss behind an MGDConnector but got it alone\.'),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_said(settings: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NoCounterpartError, match=message):
        convert_loss(settings, shape)


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"of PKDLoss but got 'loss_wieght'\. Did you mean 'loss_weight'\?"):
        convert_loss(dict(type='PKDLoss', loss_wieght=1), MAP)


def test_the_scope_is_no_part_of_the_name() -> None:
    assert known_loss(dict(type='mmrazor.PKDLoss')) == 'PKDLoss'
