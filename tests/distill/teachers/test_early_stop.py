"""A forward pass that ends at the deepest tap: all that the taps say, nothing that comes after, nothing kept."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_fixtures import Forwards
from torch import Tensor, nn

from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.early_stop import catch_until, find_steady
from kdplugin.errors import PathError, TapError


class Pyramid(nn.Module):
    """A backbone, a neck that puts out three levels, a head whose layers run once for each level, and an end."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.neck = nn.ModuleDict({'lateral': nn.Conv2d(4, 4, 1)})
        self.relu = nn.ReLU(inplace=True)
        self.score = nn.Conv2d(4, 2, 1)
        self.box = nn.Conv2d(4, 4, 1)
        self.end = nn.Identity()

    def levels(self, images: Tensor) -> int:
        return 3

    def forward(self, images: Tensor, samples: Any = None, mode: str = 'tensor') -> list[Tensor]:
        features = self.neck['lateral'](self.relu(self.backbone(images)))
        maps = [features[..., :: 2**n, :: 2**n] for n in range(self.levels(images))]
        return [self.end(self.box(level)) + self.score(level).sum() for level in maps]


@pytest.fixture
def model() -> Pyramid:
    torch.manual_seed(0)
    return Pyramid().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


CALLS = {'backbone': 1, 'neck.lateral': 1, 'score': 3, 'box': 3}


@pytest.mark.parametrize(
    'taps', [['backbone'], ['neck.lateral'], ['score'], ['box'], ['box', 'backbone'], ['score', 'box', 'neck.lateral']]
)
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_taps_say_what_they_say_in_a_whole_pass(model: Pyramid, images: Tensor, taps: list[str], mode: Any) -> None:
    clone = frozenset({'backbone'})
    with mode(), catch(model, taps, 'teacher', clone) as whole:
        model(images)
    with mode(), catch_until(model, {tap: CALLS[tap] for tap in taps}, 'teacher', clone) as caught:
        model(images)
    assert {tap: len(tensors) for tap, tensors in caught.tensors.items()} == {tap: CALLS[tap] for tap in taps}
    for tap in taps:
        for one, other in zip(caught.tensors[tap], whole.tensors[tap], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('taps', 'runs'),
    [
        (['backbone'], dict(relu=0, score=0, box=0, end=0)),
        (['neck.lateral'], dict(relu=1, score=0, box=0, end=0)),
        (['score'], dict(relu=1, score=3, box=3, end=3)),
        (['score', 'backbone'], dict(relu=1, score=3, box=3, end=3)),
        (['box'], dict(relu=1, score=2, box=3, end=2)),
    ],
)
def test_nothing_runs_after_the_last_call(
    model: Pyramid, images: Tensor, taps: list[str], runs: dict[str, int]
) -> None:
    counters = {name: Forwards(getattr(model, name)) for name in runs}
    with catch_until(model, {tap: CALLS[tap] for tap in taps}, 'teacher'):
        model(images)
    assert {name: counter.count for name, counter in counters.items()} == runs


def test_an_overwritten_tap_is_as_it_came_out(model: Pyramid, images: Tensor) -> None:
    """Copied where the in-place ReLU still runs, not copied where it never does."""
    expected = model.backbone(images)
    assert (expected < 0).any()
    with catch_until(model, {'backbone': 1, 'score': 3}, 'teacher', frozenset({'backbone'})) as copied:
        model(images)
    torch.testing.assert_close(copied.tensors['backbone'][0], expected, rtol=0, atol=0)
    with catch_until(model, {'backbone': 1}, 'teacher', frozenset({'backbone'})) as caught:
        model(images)
    torch.testing.assert_close(caught.tensors['backbone'][0], expected, rtol=0, atol=0)


def test_hooks_are_gone_and_nothing_is_kept(model: Pyramid, images: Tensor) -> None:
    seen: list[weakref.ref[Tensor]] = []
    model.relu.register_forward_hook(lambda module, args, output: seen.append(weakref.ref(output)))
    before = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    gc.disable()
    try:
        with torch.no_grad(), catch_until(model, {'neck.lateral': 1}, 'teacher') as caught:
            model(images)
        assert seen[0]() is None
        assert caught.tensors['neck.lateral'][0].grad_fn is None
    finally:
        gc.enable()
    assert {name: len(module._forward_hooks) for name, module in model.named_modules()} == before


def test_a_broad_except_in_the_model_does_not_swallow_the_stop(model: Pyramid, images: Tensor) -> None:
    inner = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            return inner(*args, **kwargs)
        except Exception:
            return model.end(images)

    counter = Forwards(model.end)
    model.forward = forward
    with catch_until(model, {'neck.lateral': 1}, 'teacher') as caught:
        model(images)
    assert counter.count == 0
    assert len(caught.tensors['neck.lateral']) == 1


def test_an_exception_of_the_model_goes_through_and_the_next_pass_is_right(model: Pyramid, images: Tensor) -> None:
    with pytest.raises(RuntimeError, match='expected input'), catch_until(model, {'score': 3}, 'teacher'):
        model(images[:, :2])
    assert not model.score._forward_hooks
    with catch_until(model, {'score': 3}, 'teacher') as caught:
        model(images)
    assert len(caught.tensors['score']) == 3


@pytest.mark.parametrize(
    ('calls', 'message'),
    [
        ({'score': 4}, r"as often as in the probe but 'score' 3 times instead of 4\. Tap modules that run equally"),
        ({'box': 2, 'score': 3}, r"as often as in the probe but 'box' 3 times instead of 2\."),
        ({'backbone': 1, 'score': 4}, r"'score' 3 times instead of 4\."),
    ],
)
def test_another_number_of_calls_is_an_error(
    model: Pyramid, images: Tensor, calls: dict[str, int], message: str
) -> None:
    with pytest.raises(TapError, match=message), catch_until(model, calls, 'teacher'):
        model(images)


def test_a_silent_tap_and_an_unknown_one_are_errors(model: Pyramid, images: Tensor) -> None:
    model.forward = model.backbone.forward
    with (
        pytest.raises(TapError, match=r"every tap of the teacher to fire but \['score'\] did not run"),
        catch_until(model, {'score': 3}, 'teacher'),
    ):
        model(images)
    with (
        pytest.raises(PathError, match="of the teacher but got 'scores'"),
        catch_until(model, {'scores': 1}, 'teacher'),
    ):
        model(images)


def probe_of(model: nn.Module, images: Tensor, taps: list[str]) -> ProbeResult:
    with torch.no_grad(), catch(model, taps, 'teacher') as caught:
        model(images)
    shapes = {tap: [tuple(tensor.shape) for tensor in tensors] for tap, tensors in caught.tensors.items()}
    return ProbeResult('tensor', shapes, frozenset({'backbone'}))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the synthetic batches."""
    seen = []

    def batch(model: nn.Module, size: tuple[int, int], count: int) -> tuple[Tensor, list[None]]:
        seen.append((count, *size))
        return torch.randn(count, 3, *size), [None] * count

    monkeypatch.setattr('kdplugin.distill.teachers.early_stop.synthetic_batch', batch)
    return seen


def test_calls_are_counted_on_two_wider_images(model: Pyramid, batches: list[tuple[int, ...]]) -> None:
    taps, state = ['score', 'neck.lateral', 'backbone'], torch.get_rng_state()
    probed = probe_of(model, torch.randn(1, 3, 8, 8), taps)
    torch.set_rng_state(state)
    steady = find_steady(model, taps, probed, 'teacher', [(8, 8)])
    assert batches == [(2, 8, 12)]
    assert steady.calls == {'backbone': 1, 'neck.lateral': 1, 'score': 3}
    assert steady.by_image
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(steady.tensors['backbone'][0], model.backbone(steady.inputs), rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('levels', [lambda images: len(images) + 2, lambda images: images.shape[-1] // 4 + 1])
def test_a_number_of_calls_that_follows_the_batch_is_not_known(
    model: Pyramid, batches: list[tuple[int, ...]], levels: Any
) -> None:
    model.levels = levels
    probed = probe_of(model, torch.randn(1, 3, 8, 8), ['score'])
    assert len(probed.shapes['score']) == 3
    assert find_steady(model, ['score'], probed, 'teacher', [(8, 8)]).calls is None


def test_tensors_that_do_not_belong_to_single_images_are_noticed(
    model: Pyramid, batches: list[tuple[int, ...]]
) -> None:
    model.end = nn.Flatten(0)
    probed = probe_of(model, torch.randn(1, 3, 8, 8), ['end', 'score'])
    steady = find_steady(model, ['end', 'score'], probed, 'teacher', [(8, 8)])
    assert steady.calls == {'end': 3, 'score': 3}
    assert not steady.by_image


def test_a_model_of_one_size_is_run_at_that(model: Pyramid, batches: list[tuple[int, ...]]) -> None:
    def check(module: nn.Module, args: Any) -> None:
        if args[0].shape[-2:] != (8, 8):
            raise ValueError('8x8 only')

    probed = probe_of(model, torch.randn(1, 3, 8, 8), ['score'])
    model.register_forward_pre_hook(check)
    assert find_steady(model, ['score'], probed, 'teacher', [(6, 6), (8, 8)]).inputs.shape == (2, 3, 8, 8)
    assert batches == [(2, 6, 9), (2, 8, 12), (2, 6, 6), (2, 8, 8)]
    with pytest.raises(ValueError, match='8x8 only'):
        find_steady(model, ['score'], probed, 'teacher', [(6, 6)])
    late = replace(probed, size=(8, 8))
    assert find_steady(model, ['score'], late, 'teacher', [(6, 6)]).inputs.shape == (2, 3, 8, 8)
