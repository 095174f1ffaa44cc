"""Taps catch what modules put out, in order, complain when they do not fire, and leave no hooks behind.

N image, C channel, H W position.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdplugin.distill.taps import catch, tensors_of
from kdplugin.errors import PathError, TapError

Pair = namedtuple('Pair', 'first second')


class Head(nn.Module):
    """One convolution for every level of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.unused = nn.Identity()

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [self.conv(level) for level in levels]


class Model(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = Head()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.relu(self.stem(image))
        return self.head([x, x[..., ::2, ::2], x[..., ::4, ::4]])


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_caught_tensors_are_the_very_outputs(image: Tensor) -> None:
    model = Model()
    with catch(model, ['relu', 'head'], 'student') as caught:
        outputs = model(image)
    assert list(caught.tensors) == ['relu', 'head']
    assert [id(tensor) for tensor in caught.tensors['head']] == [id(tensor) for tensor in outputs]
    assert torch.equal(caught.tensors['relu'][0], model.stem(image).relu())
    assert all(tensor.requires_grad for tensor in caught.tensors['head'])


def test_a_module_called_for_every_level_yields_them_in_call_order(image: Tensor) -> None:
    model = Model()
    with catch(model, ['head.conv'], 'student') as caught:
        outputs = model(image)
    assert [tuple(tensor.shape) for tensor in caught.tensors['head.conv']] == [(1, 2, n, n) for n in (8, 4, 2)]
    assert all(torch.equal(one, other) for one, other in zip(caught.tensors['head.conv'], outputs, strict=True))


def test_catching_changes_nothing(image: Tensor) -> None:
    model = Model(inplace=True)
    plain = model(image)
    with catch(model, ['stem', 'head.conv'], 'student', clone=frozenset(['stem'])):
        tapped = model(image)
    assert all(torch.equal(one, other) for one, other in zip(plain, tapped, strict=True))


def test_the_same_path_twice_is_one_tap(image: Tensor) -> None:
    model = Model()
    with catch(model, ['stem', 'stem'], 'student') as caught:
        model(image)
    assert len(caught.tensors['stem']) == 1


ONE, TWO, THREE = torch.zeros(1), torch.zeros(2), torch.zeros(3)


@pytest.mark.parametrize(
    ('output', 'expected'),
    [
        (ONE, [ONE]),
        ((ONE, TWO), [ONE, TWO]),
        ([ONE, (TWO, [THREE])], [ONE, TWO, THREE]),
        (OrderedDict(b=ONE, a=[TWO]), [ONE, TWO]),
        (Pair(THREE, dict(x=ONE)), [THREE, ONE]),
        ((), []),
    ],
)
def test_outputs_are_flattened(output: Any, expected: list[Tensor]) -> None:
    assert [id(tensor) for tensor in tensors_of(output, 'x')] == [id(tensor) for tensor in expected]


@pytest.mark.parametrize('output', [None, 'text', 3.0, (ONE, None), {'a': object()}])
def test_other_outputs_are_an_error(output: Any) -> None:
    message = r"Expected tap 'neck' to put out tensors but got (NoneType|str|float|object)\. Tap a module inside it"
    with pytest.raises(TapError, match=message):
        tensors_of(output, 'neck')


def test_a_tap_that_does_not_fire_is_an_error(image: Tensor) -> None:
    model = Model()

    def run() -> None:
        with catch(model, ['stem', 'head.unused'], 'teacher'):
            model(image)

    message = r"every tap of the teacher to fire but \['head\.unused'\] did not run in this forward pass\. Tap a module"
    with pytest.raises(TapError, match=message):
        run()
    assert hook_count(model) == 0


def test_an_unknown_path_is_an_error_and_leaves_no_hook() -> None:
    model = Model()

    def run() -> None:
        with catch(model, ['stem', 'head.convs'], 'student'):
            raise AssertionError('the block ran')

    with pytest.raises(PathError, match=r"path of the student but got 'head\.convs'\. Did you mean 'head\.conv'"):
        run()
    assert hook_count(model) == 0


def test_hooks_exist_within_the_block_alone(image: Tensor) -> None:
    model = Model()
    with catch(model, ['stem', 'head'], 'student') as caught:
        assert hook_count(model) == 2
        model(image)
    assert hook_count(model) == 0
    model(image)
    assert len(caught.tensors['stem']) == 1


def test_hooks_are_removed_after_an_exception() -> None:
    model = Model()

    def run() -> None:
        with catch(model, ['stem', 'head'], 'student'):
            model(torch.zeros(1, 5, 8, 8))

    with pytest.raises(RuntimeError, match='to have 3 channels, but got 5'):
        run()
    assert hook_count(model) == 0


def test_an_in_place_relu_after_the_tap_is_noticed(image: Tensor) -> None:
    model = Model(inplace=True)
    with catch(model, ['stem', 'relu', 'head'], 'student') as caught:
        model(image)
    assert caught.overwritten() == {'stem'}
    assert float(caught.tensors['stem'][0].detach().min()) == 0


def test_a_clone_keeps_what_the_relu_overwrites(image: Tensor) -> None:
    model = Model(inplace=True)
    with catch(model, ['stem'], 'student', clone=frozenset(['stem'])) as caught:
        model(image)
    assert caught.overwritten() == frozenset()
    kept = caught.tensors['stem'][0]
    assert torch.equal(kept, model.stem(image))
    kept.sum().backward()
    assert torch.equal(model.stem.bias.grad, torch.full((2,), 64.0))


def test_without_in_place_operations_nothing_is_overwritten(image: Tensor) -> None:
    model = Model()
    with catch(model, ['stem', 'head.conv'], 'student') as caught, torch.no_grad():
        model(image)
    assert caught.overwritten() == frozenset()


def test_a_replaced_module_is_found_anew(image: Tensor) -> None:
    model = Model()
    for _ in range(2):
        with catch(model, ['stem'], 'student') as caught:
            model(image)
        assert len(caught.tensors['stem']) == 1
        model.stem = nn.Conv2d(3, 2, 1)


def test_activation_checkpointing_does_not_catch_twice(image: Tensor) -> None:
    model = Model()
    with catch(model, ['stem'], 'student') as caught:
        x = torch.utils.checkpoint.checkpoint(model.stem, image, use_reentrant=False)
    x.sum().backward()
    assert len(caught.tensors['stem']) == 1


def test_blocks_within_each_other_both_catch() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with catch(model, ['0'], 'model') as outer:
        with catch(model, ['0'], 'model') as inner:
            model(torch.zeros(1, 2))
        model(torch.zeros(1, 2))
    assert (len(outer.tensors['0']), len(inner.tensors['0'])) == (2, 1)
    assert not model[0]._forward_hooks


def test_kept_hooks_serve_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, taps = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True)), {}
    found = []
    for clone in (frozenset(), frozenset({'0'})):
        with catch(model, ['0'], 'model', clone=clone, taps=taps) as caught:
            model(torch.randn(1, 2))
            found.append((taps['0'], caught.overwritten(), len(caught.tensors['0'])))
    assert found == [(taps['0'], frozenset({'0'}), 1), (taps['0'], frozenset(), 1)]


def test_kept_hooks_keep_no_tensors() -> None:
    model, taps = nn.Sequential(nn.Linear(2, 3)), {}
    with catch(model, ['0'], 'model', taps=taps) as caught:
        model(torch.zeros(1, 2))
    seen = weakref.ref(caught.tensors['0'][0])
    assert seen() is not None
    del caught
    assert seen() is None


def test_calls_are_counted_also_where_one_puts_out_several_tensors() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    with catch(model, ['0', '1'], 'model') as caught:
        model(torch.zeros(1, 2))
    assert caught.calls == {'0': 2, '1': 1}
    caught.add('1', [torch.zeros(1), torch.zeros(1)])
    assert caught.calls['1'] == 2
