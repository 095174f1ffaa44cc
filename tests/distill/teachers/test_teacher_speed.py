"""A faster teacher says the same, and is bit for bit what was loaded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.early_stop import Steady
from kdplugin.distill.teachers.teacher_speed import (
    FastParts,
    Speed,
    fastest,
    folded_parts,
    lay_out,
    parse_speed,
    relative_difference,
    speed_mistakes,
    untapped,
)
from kdplugin.errors import ConfigError
from kdplugin.weights.reading.io import hash_tensors

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


class Net(nn.Module):
    """Conv, BN, ReLU, conv, BN, and a head without BN."""

    def __init__(self, after: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.body = nn.Module()
        self.body.conv, self.body.norm = nn.Conv2d(8, 8, 1), after(8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor, samples: Any = None, mode: str = 'tensor') -> Tensor:
        return self.head(self.body.norm(self.body.conv(self.stem(images))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.2, 3), (module.bias, -1, 1)):
                nn.init.uniform_(value, low, high)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model.eval().requires_grad_(False)


def steady_of(model: nn.Module, taps: list[str]) -> Steady:
    images = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), catch(model, taps, 'teacher') as caught:
        model(images)
    return Steady(dict.fromkeys(taps, 1), True, images, [None, None], dict(caught.tensors))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            dict(precision='bfloat'),
            r"a precision of \['float32', 'bfloat16', 'float16'\] .* got 'bfloat'\. Did you mean",
        ),
        (dict(precision=16), 'a precision of .* but got 16'),
        (dict(channels_last='yes'), "True or False as channels_last in teacher but got 'yes'"),
        (dict(fuse=1), 'True or False as fuse in teacher but got 1'),
        (dict(compile='max-autotune'), "True or False as compile in teacher but got 'max-autotune'"),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    (mistake,) = speed_mistakes(config)
    with pytest.raises(ConfigError, match=message):
        raise mistake


def test_good_keys_are_read() -> None:
    config = dict(precision='bfloat16', channels_last=False, fuse=None, compile=True, cfg='x')
    assert list(speed_mistakes(config)) == []
    assert parse_speed(config) == Speed(precision='bfloat16', channels_last=False, compile=True)


def test_choices_that_nobody_made() -> None:
    """Channels-last where it is faster; folding rounds, which half precision would make coarse."""
    assert (Speed().folds, Speed().lays_out(CPU), Speed().lays_out(CUDA)) == (True, True, False)
    half = Speed('float16')
    assert (half.folds, half.lays_out(CPU), half.lays_out(CUDA)) == (False, True, True)
    assert Speed('bfloat16', fuse=True, channels_last=False).folds
    assert not Speed(channels_last=False).lays_out(CPU)
    assert [str(speed) for speed in Speed().slower()] == ['folded, channels_last', 'channels_last', '']
    assert list(Speed(fuse=True, channels_last=True).slower()) == [Speed(fuse=True, channels_last=True)]


def test_folding_is_the_formula_of_batch_norm(net: Net) -> None:
    parts = {(owner, name): part for owner, name, part in folded_parts(net)}
    assert {(owner is net.stem, name) for owner, name in parts} == {
        (True, '0'), (True, '1'), (False, 'conv'), (False, 'norm'),
    }  # fmt: skip
    conv, norm = net.stem[0], net.stem[1]
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded: Any = parts[net.stem, '0']
    torch.testing.assert_close(folded.weight, conv.weight * gain.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(folded.bias, norm.bias - norm.running_mean * gain)
    assert not folded.weight.requires_grad


def test_the_teacher_is_itself_outside_of_the_block_also_after_an_exception(net: Net) -> None:
    digest, modules = hash_tensors(net.state_dict()), dict(net.named_modules())
    fast = FastParts(net, Speed(), ['head'])
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        expected = net(images)
        with fast.in_place() as model:
            assert model is net
            assert isinstance(net.stem[1], nn.Identity)
            torch.testing.assert_close(net(images), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ZeroDivisionError), fast.in_place():
        raise ZeroDivisionError
    assert dict(net.named_modules()) == modules
    assert hash_tensors(net.state_dict()) == digest
    assert not any(module.training for module in net.modules())


def test_folding_shares_what_it_does_not_change(net: Net) -> None:
    with FastParts(net, Speed(), []).in_place():
        weight = net.head.weight
    assert net.head.weight is weight
    assert len(list(folded_parts(nn.Sequential(net.head, nn.GroupNorm(2, 4))))) == 0


@pytest.mark.parametrize('taps', [['head'], ['stem', 'body.norm'], ['stem.1', 'head']])
def test_the_fastest_speed_keeps_outputs_to_1e_5(net: Net, taps: list[str]) -> None:
    steady = steady_of(net, taps)
    speed, fast = fastest(net, Speed(), taps, steady, 'tensor', 'teacher')
    assert speed == Speed()
    assert len(fast.folded) == 4
    lay_out(net, channels_last=True)
    with torch.no_grad(), fast.in_place(), catch(net, taps, 'teacher') as caught:
        net(steady.inputs.contiguous(memory_format=torch.channels_last))
    assert 0 < relative_difference(caught.tensors, steady.tensors) < 1e-5


def test_what_would_change_a_tap_is_left_out_and_told(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution puts out something else once it holds the BatchNorm after it."""
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.teachers.teacher_speed.print_log', lambda message, **_: said.append(message))
    steady = steady_of(net, ['body.conv'])
    speed, fast = fastest(net, Speed(), ['body.conv'], steady, 'tensor', 'teacher')
    assert (speed.folds, speed.lays_out(CPU), fast.folded) == (False, True, [])
    assert len(said) == 1
    assert said[0].startswith('The teacher runs as [channels_last], because [folded, channels_last] changes outputs by')


def test_a_folding_that_was_asked_for_and_is_wrong_is_an_error(net: Net) -> None:
    steady = steady_of(net, ['body.conv'])
    with pytest.raises(
        ConfigError,
        match=r'the teacher to put out the same as before but \[folded\] changes outputs by .* Leave out fuse',
    ):
        fastest(net, Speed(fuse=True, channels_last=False), ['body.conv'], steady, 'tensor', 'teacher')


def test_convolutions_that_share_a_batch_norm_order_are_not_folded_wrongly() -> None:
    """One convolution under two BatchNorms, as in RTMDet's heads: mmcv folds both into it."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d(3, 4, 1)
            self.one, self.two = (nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2))
            for norm in (self.one[1], self.two[1]):
                nn.init.uniform_(norm.weight, 2, 3)

        def forward(self, images: Tensor, samples: Any = None, mode: str = 'tensor') -> Tensor:
            return self.one(images) + self.two(images)

    torch.manual_seed(0)
    model = Shared().eval().requires_grad_(False)
    taps = ['one', 'two']
    speed, _ = fastest(model, Speed(channels_last=False), taps, steady_of(model, taps), 'tensor', 'teacher')
    assert not speed.folds


def test_a_layout_that_a_model_does_not_take_is_left_out(net: Net) -> None:
    def flat(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.view(len(output), -1)

    net.head.register_forward_hook(flat)
    steady = steady_of(net, ['head'])
    speed, _ = fastest(net, Speed(), ['head'], steady, 'tensor', 'teacher')
    assert (speed.folds, speed.lays_out(CPU)) == (False, False)
    assert net.stem[0].weight.is_contiguous()
    with pytest.raises(ConfigError, match=r'\[channels_last\] fails with RuntimeError: view size is not compatible'):
        fastest(net, Speed(fuse=False, channels_last=True), ['head'], steady, 'tensor', 'teacher')


def test_without_a_batch_to_compare_only_what_was_asked_for_is_done(net: Net) -> None:
    speed, fast = fastest(net, Speed(), ['head'], None, 'tensor', 'teacher')
    assert (speed.folds, speed.lays_out(CPU), fast.folded) == (False, False, [])
    speed, fast = fastest(net, Speed(fuse=True), ['head'], None, 'tensor', 'teacher')
    assert (speed.folds, len(fast.folded)) == (True, 4)


@pytest.mark.parametrize(
    ('precision', 'student', 'dtype'),
    [
        (None, False, torch.float32),
        (None, True, torch.bfloat16),
        ('float32', True, torch.float32),
        ('bfloat16', False, torch.bfloat16),
        ('float16', True, torch.float16),
    ],
)
def test_precision_is_the_teachers_own_or_that_of_the_student(
    net: Net, precision: str | None, student: bool, dtype: torch.dtype
) -> None:
    speed = Speed(precision)
    with torch.autocast('cpu', torch.bfloat16, enabled=student):
        assert speed.effective(CPU) == str(dtype).removeprefix('torch.')
        with speed.autocast(CPU), torch.no_grad():
            assert net(torch.randn(1, 3, 8, 8)).dtype == dtype
        assert torch.is_autocast_enabled('cpu') == student


def test_untapped_parts_are_the_largest_without_a_tap_inside(net: Net) -> None:
    names = {module: name for name, module in net.named_modules()}
    assert [names[part] for part in untapped(net, ['head'])] == ['stem', 'body', 'head']
    assert [names[part] for part in untapped(net, ['body', 'stem.1'])] == [
        'stem.0', 'stem.1', 'stem.2', 'stem.3', 'body', 'head',
    ]  # fmt: skip
    lists = nn.ModuleDict({'heads': nn.ModuleList([nn.Identity()])})
    assert [type(part) for part in untapped(lists, [])] == [nn.Identity]


def test_compiled_parts_run_in_the_block_alone(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def compiled(forward: Any) -> Any:
        def run(*args: Any) -> Any:
            runs.append(type(forward.__self__).__name__)
            return forward(*args)

        return run

    monkeypatch.setattr(torch, 'compile', compiled)
    fast = FastParts(net, Speed(compile=True), ['body.norm'])
    images = torch.randn(1, 3, 8, 8)
    plain = net(images)
    with fast.in_place(), catch(net, ['body.norm'], 'teacher') as caught:
        output = net(images)
    assert runs == ['Sequential', 'Conv2d', 'Identity', 'Conv2d']
    assert len(caught.tensors['body.norm']) == 1
    torch.testing.assert_close(output, plain, rtol=1e-5, atol=1e-5)
    runs.clear()
    net(images)
    assert runs == []


def test_a_difference_is_relative_and_the_worst_one_counts() -> None:
    ours = dict(a=[torch.tensor([3.0, 4.0])], b=[torch.tensor([2.0]), torch.tensor([0.5])])
    theirs = dict(a=[torch.tensor([3.0, 4.5])], b=[torch.tensor([2.0]), torch.tensor([1.0])])
    assert relative_difference(ours, theirs) == pytest.approx(0.5)
    assert math.isnan(relative_difference(ours, dict(theirs, a=[torch.tensor([math.nan, 1.0])])))
    assert relative_difference({}, {}) == 0
