"""A network that is widened computes the same, and comes back; a low-rank stream is kept whole by svd alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from small_nets import Modulated, PostNorm, Vit, fill, projected, same_names
from torch import Tensor, nn
from wired_nets import Fusing, Grouped, Uneven

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection
from kdplugin.weights.reading.io import hash_tensors

TOKENS = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
VITS = {
    'fused': {},
    'split': {'fused': False},
    'rms': {'norm': 'rms', 'scale': True},
    'gated': {'gated': True, 'qk_norm': True},
}


def vit(times: int, **kind: Any) -> nn.Module:
    return Vit(16 * times, heads=2 * times, hidden=24 * times, **kind)


def resnet(times: int, block: Any) -> nn.Module:
    class Narrow(torchvision.models.ResNet):
        def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
            self.inplanes = 8 * times if planes == 64 else self.inplanes
            return super()._make_layer(block, planes * times // 8, *args, **kwargs)

    model = Narrow(block, [1, 2, 1, 2], num_classes=5)
    model.conv1, model.bn1 = nn.Conv2d(3, 8 * times, 7, 2, 3, bias=False), nn.BatchNorm2d(8 * times)
    model.fc = nn.Linear(64 * times * block.expansion, 5)
    return model


def mobilenet(times: int) -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    rows = [(16, 3, 16, 16, True, 2), (16, 3, 72, 24, False, 2), (24, 3, 88, 24, False, 1), (24, 5, 96, 40, True, 2)]
    settings = [
        InvertedResidualConfig(i * times, k, e * times, o * times, gate, 'HS', stride, 1, 1)
        for i, k, e, o, gate, stride in rows
    ]
    return MobileNetV3(settings, last_channel=64 * times, num_classes=5)


def vgg(times: int) -> nn.Module:
    """A plain chain, with a linear layer behind that reads the positions of each channel."""
    widths = [3, 4 * times, 8 * times, 8 * times]
    layers = [
        layer
        for i in range(3)
        for layer in (nn.Conv2d(widths[i], widths[i + 1], 3), nn.BatchNorm2d(widths[i + 1]), nn.ReLU(), nn.MaxPool2d(2))
    ]
    parts = {
        'features': nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten()),
        'classifier': nn.Sequential(nn.Linear(72 * times, 12 * times), nn.ReLU(), nn.Linear(12 * times, 5)),
    }
    return nn.Sequential(OrderedDict(parts))


def convnext(times: int) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    sizes = [(8 * times, 16 * times, 2), (16 * times, None, 1)]
    return ConvNeXt([CNBlockConfig(*size) for size in sizes], num_classes=5)


def swin(times: int) -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 8 * times, [2, 2], [times, 2 * times], [4, 4], num_classes=5)


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Tensor, dict[str, Any]]] = {
    **{name: (lambda n, kind=kind: vit(n, **kind), TOKENS, {'head_dim': 8}) for name, kind in VITS.items()},
    'post-norm': (lambda n: PostNorm(16 * n, 2 * n), TOKENS, {'head_dim': 8}),
    'modulated': (lambda n: Modulated(16 * n, 2 * n), TOKENS, {'head_dim': 8}),
    'resnet basic': (lambda n: resnet(n, torchvision.models.resnet.BasicBlock), IMAGES, {}),
    'resnet bottleneck': (lambda n: resnet(n, torchvision.models.resnet.Bottleneck), IMAGES, {}),
    'mobilenet': (mobilenet, IMAGES, {}),
    'vgg': (vgg, IMAGES, {}),
    'convnext': (convnext, IMAGES, {}),
    'swin': (swin, IMAGES, {}),
    'grouped queries': (lambda n: Grouped(16 * n, 4 * n), TOKENS, {'head_dim': 8}),
    'more queries for each key': (lambda n: Grouped(16 * n, 4 * n, 2 * n), TOKENS, {'head_dim': 8}),
    'fusing': (Fusing, IMAGES, {'head_dim': 8}),
    'uneven': (Uneven, IMAGES, {}),
}
SEES_ZEROS = {'gated', 'modulated', 'post-norm', 'convnext', 'swin', 'fusing'}


@torch.no_grad()
@pytest.mark.parametrize('name', NETWORKS)
def test_a_wider_network_computes_the_same(name: str) -> None:
    """Net2Net's law: it holds only if all axes that belong together got the same units."""
    make, inputs, heads = NETWORKS[name]
    small, wide = fill(make(1)), make(2).eval()
    projected(small, wide, wider='repeat', **heads)
    assert torch.allclose(wide(inputs), small(inputs), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('name', ['uneven', 'fusing', 'grouped queries'])
def test_the_order_of_a_file_does_not_matter(name: str) -> None:
    make, inputs, heads = NETWORKS[name]
    small, wide = fill(make(1)), make(2).eval()
    source, target = (dict(sorted(model.state_dict().items())) for model in (small, wide))
    plan = with_projection(same_names(source, target), source, **heads)
    wide.load_state_dict(apply_plan(plan, source).tensors)
    assert torch.allclose(wide(inputs), small(inputs), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('name', sorted(NETWORKS.keys() - {'swin'}))
def test_svd_finds_the_network_that_was_widened_with_zeros(name: str) -> None:
    make, inputs, heads = NETWORKS[name]
    small, wide, back = fill(make(1)), make(2).eval(), make(1).eval()
    plan, _ = projected(small, wide, wider='zero', **heads)
    if name in SEES_ZEROS:
        assert any('its norms see' in note or 'sees the zeros' in note for note in plan.notes)
    else:
        assert torch.allclose(wide(inputs), small(inputs), atol=1e-5, rtol=1e-4)
    projected(wide, back, method='svd', **heads)
    assert torch.allclose(back(inputs), small(inputs), atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('method', ['truncate', 'average', 'svd'])
def test_narrower_networks_run(name: str, method: str) -> None:
    make, inputs, heads = NETWORKS[name]
    wide, narrow = fill(make(2)), make(1).eval()
    plan, applied = projected(wide, narrow, method=method, **heads)
    assert torch.isfinite(narrow(inputs)).all()
    assert all(0 <= error < 1 for error in applied.errors.values())
    assert not any('could not be traced' in note for note in plan.notes)
    assert ProjectionPlan.from_json(plan.to_json()) == plan
    again = apply_plan(ProjectionPlan.from_json(plan.to_json()), wide.state_dict()).tensors
    assert hash_tensors(again) == hash_tensors(applied.tensors)


@torch.no_grad()
def low_rank(width: int, rank: int, **kind: Any) -> nn.Module:
    """Return a teacher whose stream lies in ``rank`` dimensions, one of them all ones where LayerNorm reads it."""
    teacher = fill(Vit(width, hidden=48, **kind))
    centred = kind.get('norm') != 'rms'
    span = torch.randn(width, rank - centred, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    if centred:
        span = torch.cat([span - span.mean(0), torch.ones(width, 1)], 1)
    basis = torch.linalg.qr(span).Q
    within = (basis @ basis.T).float()
    for name, value in teacher.state_dict().items():
        if name == 'pos_embed':
            value.copy_(value @ within)
        elif name.startswith('embed.') or '.proj.' in name or '.w3.' in name:
            value.copy_(within @ value)
        elif name.endswith('gamma'):
            value.fill_(0.7)  # another one would leave the subspace
    return teacher


@torch.no_grad()
@pytest.mark.parametrize('kind', VITS.values(), ids=VITS)
@pytest.mark.parametrize('rank', [4, 7, 12])
def test_low_rank_law(kind: dict[str, Any], rank: int) -> None:
    """The stream lies in k dimensions; svd to width k computes the same, truncate and average do not."""
    teacher = low_rank(32, rank, **kind)
    expected, difference = teacher(TOKENS), {}
    for method in ('svd', 'truncate', 'average'):
        student = Vit(rank, hidden=48, **kind).eval()
        projected(teacher, student, method=method)
        difference[method] = float((student(TOKENS) - expected).abs().max())
    assert difference['svd'] < 1e-4
    assert min(difference['truncate'], difference['average']) > 0.02


@torch.no_grad()
def test_gains_are_folded_and_the_students_norms_are_plain() -> None:
    teacher, student = low_rank(32, 8), Vit(8, hidden=48)
    plan, _ = projected(teacher, student, method='svd')
    for norm in (student.blocks[0].norm1, student.blocks[1].norm2, student.norm):
        assert torch.equal(norm.weight, torch.ones(8))
        assert not norm.bias.any()
    assert plan['head.bias'].kind == 'projected'
    assert plan.groups['stream.32'].centred
    assert not plan.notes


@torch.no_grad()
def test_a_centred_basis_is_needed_for_layer_norm_alone() -> None:
    """The stream has as many dimensions as the student, but none of them is all ones: LayerNorm loses one."""
    teacher, student = low_rank(32, 8, norm='rms'), Vit(8, hidden=48)
    with_layer_norm = fill(Vit(32, hidden=48))
    shared = {k: v for k, v in teacher.state_dict().items() if 'norm' not in k}
    with_layer_norm.load_state_dict({**with_layer_norm.state_dict(), **shared})
    projected(with_layer_norm, student, method='svd')
    assert (student.eval()(TOKENS) - with_layer_norm(TOKENS)).abs().max() > 1e-3


def test_q_k_and_v_come_from_q_k_and_v() -> None:
    teacher, student = fill(Vit(32)), Vit(16, heads=2, hidden=24)
    plan, applied = projected(teacher, student, method='truncate', head_dim=8)
    entry = plan['blocks.0.attn.qkv.weight']
    assert [str(piece.steps[0]) for piece in entry.pieces] == [
        'narrow(0, 0, 32)',
        'narrow(0, 32, 64)',
        'narrow(0, 64, 96)',
    ]
    whole = teacher.state_dict()['blocks.0.attn.qkv.weight'].unflatten(0, (3, 32))
    assert torch.equal(applied.tensors['blocks.0.attn.qkv.weight'].unflatten(0, (3, 16)), whole[:, :16, :16])


@torch.no_grad()
def test_average_passes_what_is_constant_within_groups() -> None:
    """A teacher whose neighbouring channels, units and heads are equal computes the same when they are averaged."""
    small, wide, back = fill(vit(1)), vit(2).eval(), vit(1).eval()
    projected(small, wide, wider='repeat', head_dim=8)
    orders = {
        16: torch.arange(32).unflatten(0, (2, 16)).T.flatten(),
        24: torch.arange(48).unflatten(0, (2, 24)).T.flatten(),
    }
    heads = torch.arange(32).unflatten(0, (2, 2, 8)).transpose(0, 1).flatten()
    state = {name: value.clone() for name, value in wide.state_dict().items()}
    for name, value in state.items():
        if value.shape[-1] == 32 and '.proj.weight' not in name and 'qkv.bias' not in name:
            value.copy_(value[..., orders[16]])
        if '.proj.weight' in name:
            value.copy_(value[orders[16]][:, heads])
        if name.startswith('embed.weight') or '.w3.weight' in name:
            value.copy_(value[orders[16]])
        if '.w3.weight' in name:
            value.copy_(value[:, orders[24]])
        if '.w1.' in name:
            value.copy_(value[orders[24]])
        if 'qkv' in name:
            value.copy_(value.unflatten(0, (3, 32))[:, heads].flatten(0, 1))
    wide.load_state_dict(state)
    assert torch.allclose(wide(TOKENS), small(TOKENS), atol=1e-5)
    projected(wide, back, method='average', head_dim=8)
    assert torch.allclose(back(TOKENS), small(TOKENS), atol=1e-5)


def test_a_plan_without_other_widths_stays_as_it_is() -> None:
    model = fill(Vit())
    plan = same_names(model.state_dict(), model.state_dict())
    same = with_projection(plan, model.state_dict())
    assert (same.entries, same.groups, same.notes) == (plan.entries, {}, ())


def test_values_are_not_read() -> None:
    with torch.device('meta'):
        teacher, student = Vit(32), Vit(16)
    plan = with_projection(same_names(teacher.state_dict(), student.state_dict()), teacher.state_dict())
    assert plan.groups['stream.32'].method == 'svd'


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'method': 'pca'}, ConfigError, r"Expected a method of truncate, average, svd and wider of .* but got 'pca'"),
        ({'wider': 'pad'}, ConfigError, r"but got 'svd' and 'pad'\. Choose one of these"),
        ({}, ConfigError, r'Expected the number of heads of blocks.0.attn \(32 to 16\) but its tensors do not tell it'),
        ({'heads': 3}, ConfigError, r'Expected whole heads in blocks.0.attn \(32 to 16\)'),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: type[Exception], message: str) -> None:
    teacher, student = Vit(32), Vit(16, heads=2)
    with pytest.raises(error, match=message):
        with_projection(same_names(teacher.state_dict(), student.state_dict()), teacher.state_dict(), **options)


def test_projecting_twice_is_refused() -> None:
    teacher, student = Vit(32), Vit(16)
    plan = with_projection(same_names(teacher.state_dict(), student.state_dict()), teacher.state_dict())
    with pytest.raises(
        CheckpointError, match=r'Expected a plan without axis groups but got one that has them\. Make it'
    ):
        with_projection(plan, teacher.state_dict())
