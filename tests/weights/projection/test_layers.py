"""Layer choice: both ends, strictly increasing, and nothing the depths do not allow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.projection import layers
from kdplugin.weights.projection.layers import choose_layers, weight_similarity
from kdplugin.weights.reading.tensor_source import MemorySource


def test_uniform_of_known_depths() -> None:
    """40 to 16 as for Wan; WanDistiller's floor sampling ends at 37."""
    assert choose_layers(40, 16, 'uniform') == (0, 3, 5, 8, 10, 13, 16, 18, 21, 23, 26, 29, 31, 34, 36, 39)
    assert choose_layers(12, 6, 'uniform') == (0, 2, 4, 7, 9, 11)
    assert choose_layers(4, 1, 'uniform') == (0,)


def test_halves_round_up() -> None:
    assert choose_layers(4, 3, 'uniform') == (0, 2, 3)


@pytest.mark.parametrize('source', [1, 2, 3, 5, 12, 24, 40])
def test_uniform_increases_strictly_and_has_both_ends(source: int) -> None:
    for target in range(2, source + 1):
        chosen = choose_layers(source, target, 'uniform')
        assert (chosen[0], chosen[-1], len(chosen)) == (0, source - 1, target)
        assert all(a < b for a, b in itertools.pairwise(chosen))
    assert choose_layers(source, source, 'uniform') == tuple(range(source))


def test_first_last_and_lists() -> None:
    assert choose_layers(6, 3, 'first') == (0, 1, 2)
    assert choose_layers(6, 3, 'last') == (3, 4, 5)
    assert choose_layers(6, 3, [0, 4, 5]) == (0, 4, 5)


def test_layers_that_change_least_go() -> None:
    alike = torch.tensor([0.1, 0.9, 0.5, 0.95, 0.2, 0.9])
    assert choose_layers(6, 3, 'similarity', alike) == (0, 2, 4)
    assert choose_layers(6, 5, 'similarity', alike) == (0, 1, 2, 4, 5)


def test_of_alike_neighbours_the_later_goes_and_the_ends_stay() -> None:
    pairs = torch.zeros(5, 5)
    pairs[1, 2] = pairs[3, 4] = 0.9
    pairs[0, 1] = 0.8
    assert choose_layers(5, 4, 'similarity', pairs) == (0, 1, 3, 4)
    assert choose_layers(5, 3, 'similarity', pairs) == (0, 1, 4)
    assert choose_layers(5, 2, 'similarity', pairs) == (0, 4)
    assert choose_layers(5, 1, 'similarity', pairs) == (0,)


@pytest.mark.parametrize(
    ('target', 'how', 'message'),
    [
        (7, 'uniform', r'Expected a target of 1 to 6 layers for a source of 6 but got 7\. Take a deeper source'),
        (0, 'uniform', r'but got 0\. '),
        (
            3,
            'unifrom',
            r"Expected layers of uniform, .* or a list of indices but got 'unifrom'\. Did you mean 'uniform'",
        ),
        (3, [0, 1], r'Expected 3 increasing layers from 0 to 5 but got \[0, 1\]\. Name one source layer for each'),
        (3, [0, 0, 1], r'but got \[0, 0, 1\]'),
        (3, [2, 1, 3], r'but got \[2, 1, 3\]'),
        (3, [0, 1, 6], r'but got \[0, 1, 6\]'),
        (3, 'similarity', r'Expected similarities of 6 layers, or of 6 x 6 pairs, but got none\. Measure them with'),
    ],
)
def test_choices_that_cannot_be(target: int, how: str | Sequence[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_layers(6, target, how)


def test_similarities_of_another_depth_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'6 x 6 pairs, but got \(5,\)'):
        choose_layers(6, 3, 'similarity', torch.zeros(5))


def test_weights_tell_copies_from_strangers() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(300, 300), torch.randn(300, 300)
    tensors = {f'blocks.{i}.fc.weight': value for i, value in enumerate([one, 3 * one, other, -other])}
    tensors |= {f'blocks.{i}.count': torch.tensor(i) for i in range(4)} | {'blocks.10x.fc.weight': one}
    alike = weight_similarity(MemorySource(tensors), 'blocks')
    assert alike.shape == (4, 4)
    assert alike[0, 1] == pytest.approx(1, abs=1e-5)
    assert alike[2, 3] == pytest.approx(-1, abs=1e-5)
    assert abs(alike[0, 2]) < 0.05
    assert choose_layers(4, 3, 'similarity', alike) == (0, 2, 3)


def test_large_tensors_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, 'SKETCH', 10)
    tensors = {f'b.{i}.w': torch.arange(95.0) for i in range(2)}
    tensors['b.1.w'][1::2] = -7.0
    assert weight_similarity(MemorySource(tensors), 'b')[0, 1] == pytest.approx(1)


def test_a_missing_stack_is_named() -> None:
    source = MemorySource({'encoder.layer.0.w': torch.ones(2)}, 'teacher.pth')
    message = r"Expected layers encoder.layers.0, .* in teacher.pth but there are none\. Did you mean 'encoder.layer'"
    with pytest.raises(CheckpointError, match=message):
        weight_similarity(source, 'encoder.layers')
