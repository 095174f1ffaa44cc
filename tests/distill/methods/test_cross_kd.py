"""CrossKD: golden values, zero at identity, who gets a gradient, and training on mmdet's dense heads.

N image, C channel, H W position.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_fixtures import build, stir, teacher_of
from method_laws import LAWS, batch_of, gradients_of_the_pair_alone, learner, padding_does_not_count, raw
from method_laws import it_trains_the_student_and_its_own_parameters_only as it_trains
from method_models import DENSE, GN, dense
from torch import Tensor, nn

from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.methods import CrossKD, StepContext
from kdplugin.distill.methods.cross_head import run_rest
from kdplugin.errors import ConfigError, TapError

GOLDEN = json.loads((Path(__file__).parents[2] / 'golden/cross_head.json').read_text())['cases']
PAIR = dict(type='kdplugin.CrossKD', convs=1)
BN = dict(type='BN')


class Sample(dict):
    img_shape = (64, 48)


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def context(student: Tensor, teacher: Tensor, model: nn.Module, **more: Any) -> StepContext:
    """Return a context of one level at the necks."""
    sides = {'neck': [student]}, {'neck': [teacher]}
    return StepContext(*sides, nn.Identity(), SimpleNamespace(module=model), **more)  # type: ignore[arg-type]


def golden_head(case: dict[str, Any]) -> nn.Module:
    """Return a model whose bbox_head is mmdet's, with the weights of a case."""
    config = dense(case['name'], convs=1, norm=None)['bbox_head']
    config.update(num_classes=2, in_channels=2, feat_channels=3, _scope_='mmdet')
    if case['name'] == 'GFL':
        config['reg_max'] = 2
    else:
        config['anchor_generator'].update(ratios=[0.5, 1.0])
        config['bbox_coder']['target_stds'] = [1.0] * 4
    config['anchor_generator']['strides'] = [8]
    head = build(config, initialise=False).double().eval()
    prefix = 'gfl' if case['name'] == 'GFL' else 'retina'
    state = {}
    for key, value in case['weights'].items():
        name = key if '_convs.' in key else f'{prefix}_{key}'
        state[name] = double(value)
    if case['name'] == 'GFL':
        state['scales.0.scale'] = double(1.5)
    else:
        head.prior_generator.base_anchors = [double([[-8, -8, 8, 8], [-16, -8, 16, 8]])]
    missing, unexpected = head.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {'integral.project'}
    return nn.ModuleDict({'bbox_head': head}).requires_grad_(False)


@pytest.mark.parametrize('case', GOLDEN, ids=lambda case: case['name'])
def test_golden_values(case: dict[str, Any]) -> None:
    student, teacher = double([case['student']]).requires_grad_(), double([case['teacher']])
    model = golden_head(case)
    for weights, expected in (((1.0, 0.0), case['classes']), ((0.0, 1.0), case['boxes'])):
        method = CrossKD('p', convs=0, class_weight=weights[0], box_weight=weights[1], temperature=2.0)
        value = method.distance(context(student, teacher, model))
        assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.abs().max() > 0
    both = CrossKD('p', convs=0, class_weight=2.0, box_weight=3.0, temperature=2.0)
    value = both.distance(context(student, teacher, model)).detach()
    assert float(value) == pytest.approx(2 * case['classes'] + 3 * case['boxes'], rel=1e-6)
    assert both.distance(context(teacher, teacher, model)).abs() < 1e-9


def test_taps_are_the_towers_of_the_student_and_the_neck_of_the_teacher() -> None:
    method = CrossKD('p', tap='bbox_head', teacher_tap='head', neck='fpn')
    assert method.student_taps == ('bbox_head.cls_convs.2', 'bbox_head.reg_convs.2')
    assert (method.teacher_taps, method.head) == (('fpn',), 'head')
    assert CrossKD('p', convs=0).student_taps == ('neck',)


@pytest.mark.parametrize('kind', DENSE)
def test_a_student_that_is_its_teacher_learns_nothing(kind: str, tmp_path: Path) -> None:
    model = learner(tmp_path, PAIR, dense(kind), dense(kind))
    model.load_state_dict(teacher_of(model).state_dict(), strict=True)
    model.eval()
    assert model(**batch_of(), mode='loss')['loss_kd_p'].abs() < 1e-5
    stir(model)
    assert model(**batch_of(), mode='loss')['loss_kd_p'] > 1e-4


@pytest.mark.parametrize('kind', DENSE)
def test_training(kind: str, tmp_path: Path) -> None:
    """The teacher is wider and normalises its towers by BatchNorm, whose statistics stay (in the laws)."""
    student, teacher = dense(kind), dense(kind, width=16, neck=24, norm=BN if kind == 'RetinaNet' else GN)
    model = learner(tmp_path, PAIR, student, teacher)
    assert not adapters_of(model)
    gradients_of_the_pair_alone(model, batch_of(), 'bbox_head.cls_convs.0', own=False)
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert not [name for name in reached if name.startswith('bbox_head.') and '_convs.0' not in name]
    assert any(name.startswith('backbone.') for name in reached)
    it_trains(model, student, batch_of(padded=True))
    if kind in ('GFL', 'RetinaNet'):
        for law in LAWS:
            law(model, batch_of())


def test_the_student_is_normalised_by_the_teachers_statistics(tmp_path: Path) -> None:
    """Moving the mean that the teacher's BatchNorm has seen moves the student's term; batch statistics would not."""
    model = learner(tmp_path, dict(PAIR, class_weight=1.0, box_weight=0.0), dense('GFL'), dense('GFL', norm=BN))
    model.eval()
    before = raw(model, batch_of()).detach()
    with torch.no_grad():
        teacher_of(model).bbox_head.cls_convs[1].bn.running_mean.add_(1.0)
    assert abs(raw(model, batch_of()).detach() - before) > 1e-5


@pytest.mark.parametrize('how', [dict(precision='bfloat16'), dict(scale=2.0), dict(fuse=True)], ids=str)
def test_a_teacher_that_runs_in_its_own_way(how: dict[str, Any], tmp_path: Path) -> None:
    """In half precision, on larger images, or with BatchNorm folded while it runs: its head stays whole."""
    model = learner(tmp_path, PAIR, dense('RetinaNet'), dense('RetinaNet', norm=BN), **how)
    it_trains(model, dense('RetinaNet'), batch_of(padded=True))
    gradients_of_the_pair_alone(model, batch_of(), 'bbox_head.cls_convs.0', own=False)


def test_towers_of_another_width_get_an_adapter(tmp_path: Path) -> None:
    student, teacher = dense('GFL', feat_channels=8), dense('GFL', num_classes=7)
    model = learner(tmp_path, PAIR, student, teacher)
    assert [tuple(layer.weight.shape[:2]) for layer in adapters_of(model)['p']] == [(16, 8), (16, 8)]
    gradients_of_the_pair_alone(model, batch_of(), 'bbox_head.reg_convs.0', own=True)
    it_trains(model, student, batch_of())


def test_a_student_with_shorter_towers_enters_the_teachers_where_it_is_told(tmp_path: Path) -> None:
    student, teacher = dense('ATSS', convs=1), dense('ATSS', convs=3)
    with pytest.raises(ConfigError, match=r'Expected convs from 0 to 3 .* but got 4: .* also as teacher_convs'):
        learner(tmp_path, dict(PAIR, teacher_convs=4), student, teacher)
    model = learner(tmp_path, dict(PAIR, teacher_convs=2), student, teacher)
    it_trains(model, student, batch_of())
    head, features = teacher_of(model).bbox_head, torch.randn(1, 16, 4, 4)
    crossed = run_rest(head, 2, [[features]] * 2)
    torch.testing.assert_close(crossed[0][0], head.atss_cls(head.cls_convs[2](features)))


def test_the_whole_head_of_the_teacher_can_look_at_the_neck(tmp_path: Path) -> None:
    student = dense('GFL')
    model = learner(tmp_path, dict(PAIR, convs=0), student, dense('GFL', neck=24))
    assert [tuple(layer.weight.shape[:2]) for layer in adapters_of(model)['p']] == [(24, 16)]
    gradients_of_the_pair_alone(model, batch_of(), 'neck.', own=True)
    it_trains(model, student, batch_of())


def test_padding_does_not_count(tmp_path: Path) -> None:
    """Of heads that look at one cell only, since a 3x3 convolution would carry the padding in."""
    model = build(dense('ATSS', convs=1)).eval()
    head = model.bbox_head
    for tower, last in (('cls_convs', 'atss_cls'), ('reg_convs', 'atss_reg')):
        setattr(head, tower, nn.ModuleList())
        old = getattr(head, last)
        torch.manual_seed(0)
        setattr(head, last, nn.Conv2d(16, old.out_channels, 1))
    model.requires_grad_(False)
    more = dict(image_size=(64, 64), data_samples=[Sample(img_shape=0)] * 2)
    head.prior_generator.base_anchors = head.prior_generator.base_anchors[:1]
    head.prior_generator.strides = head.prior_generator.strides[:1]
    head.prior_generator.scales = head.prior_generator.scales[:1]
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8)
    method = CrossKD('p', convs=0)
    padding_does_not_count(method, lambda ours, theirs: context(ours, theirs, model, **more), student, teacher)


def test_settings_and_their_errors(tmp_path: Path) -> None:
    for settings, message in (
        (dict(convs=-1), r"Expected convs to be a number >= 0 in pair 'p' but got -1"),
        (dict(beta=0.5), r"Expected a finite beta >= 1 in pair 'p' but got 0\.5"),
        (dict(temperature=0), r"Expected a finite temperature of pair 'p' > 0 but got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            CrossKD('p', **settings)
    with pytest.raises(ConfigError, match=r"Expected convs from 0 to 2 in pair 'p' but got 3"):
        learner(tmp_path, dict(PAIR, convs=3), dense('GFL', convs=3), dense('GFL'))
    teacher = dense('GFL')
    teacher['neck']['num_outs'] = 4
    teacher['bbox_head']['anchor_generator']['strides'] = [8, 16, 32, 64]
    with pytest.raises(TapError, match=r"student and teacher of pair 'p' to have as many levels but got 5 and 4"):
        learner(tmp_path, PAIR, dense('GFL'), teacher)
