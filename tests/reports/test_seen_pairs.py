from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement

from kdplugin.distill.methods import StepContext
from kdplugin.distill.methods.attention_kd import AttentionKD
from kdplugin.distill.methods.tap_loss import TapLoss
from kdplugin.distill.pairs import Pair, parse_pair
from kdplugin.distill.schedules import Weight, parse_schedule
from kdplugin.reports.seen_pairs import (
    SeenLevel,
    energy,
    mean_cosine,
    mean_numbers,
    relative_error,
    seen_levels,
    without_padding,
)

COSINE = dict(type='kdplugin.CosineLoss')


def context(student: list[torch.Tensor], teacher: list[torch.Tensor], **more: Any) -> StepContext:
    nobody: Any = None
    return StepContext({'t': student}, {'t': teacher}, nobody, nobody, **more)


def pair(loss: dict[str, Any] = COSINE) -> Pair:
    return parse_pair('p', dict(tap='t', loss=loss))


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_energy_is_the_mean_square_in_units_of_its_mean() -> None:
    features = rand(5, 3, 4)
    map_ = energy(features)
    by_hand = [[sum(float(features[c, y, x]) ** 2 for c in range(5)) / 5 for x in range(4)] for y in range(3)]
    mean = sum(map(sum, by_hand)) / 12
    torch.testing.assert_close(map_, torch.tensor(by_hand) / mean)
    torch.testing.assert_close(energy(7 * features), map_)
    assert energy(rand(5, 9)).shape == (1, 9)
    assert energy(rand(5)).shape == (1, 5)
    assert energy(torch.zeros(2, 3, 3)).tolist() == [[0.0] * 3] * 3


def test_numbers_of_equal_scaled_and_opposite_features() -> None:
    features = rand(4, 3, 3)
    assert relative_error(features, features) == 0
    assert relative_error(3 * features, features) == pytest.approx(2)
    assert relative_error(torch.zeros_like(features), features) == pytest.approx(1)
    assert mean_cosine(3 * features, features) == pytest.approx(1)
    assert mean_cosine(-features, features) == pytest.approx(-1)
    (level,) = seen_levels(pair(), context([3 * features[None]], [features[None]]))
    assert level.numbers == pytest.approx({'relative error': 2, 'cosine': 1, 'energy error': 0}, abs=1e-6)
    torch.testing.assert_close(level.student, level.teacher)
    assert level.title == ''


def test_levels_are_numbered_and_the_first_image_is_taken() -> None:
    ours, theirs = [rand(2, 4, 6, 6), rand(2, 4, 3, 3)], [rand(2, 4, 6, 6, seed=1), rand(2, 4, 3, 3, seed=1)]
    levels = seen_levels(pair(), context(ours, theirs))
    assert [level.title for level in levels] == ['level 1 of 2', 'level 2 of 2']
    assert levels[1].shapes == ((4, 3, 3), (4, 3, 3))
    torch.testing.assert_close(levels[1].student, energy(ours[1][0]))
    assert levels[0].numbers['cosine'] == pytest.approx(mean_cosine(ours[0][0], theirs[0][0]))


def test_padding_is_cut_off() -> None:
    sample = BaseDataElement(metainfo=dict(img_shape=(48, 40)))
    features = rand(1, 2, 8, 8)
    given = context([features], [features.clone()], image_size=(64, 64), data_samples=[sample])
    assert without_padding(features[0], given).shape == (2, 6, 5)
    features[..., 6:, :] = 1e6
    (level,) = seen_levels(pair(), given)
    assert level.teacher.shape == (6, 5)
    assert level.numbers['relative error'] == 0


def test_relations_of_other_channels_have_an_error_of_their_energy_alone() -> None:
    ours = rand(1, 4, 3, 3)
    loss = dict(type='kdplugin.AttentionTransferLoss')
    (level,) = seen_levels(pair(loss), context([ours], [torch.cat([ours, ours], 1)]))
    assert level.numbers == {'relative error': None, 'cosine': None, 'energy error': pytest.approx(0, abs=1e-6)}
    (tokens,) = seen_levels(pair(dict(type='kdplugin.RKDLoss')), context([rand(1, 9, 4)], [rand(1, 9, 6)]))
    assert tokens.student.shape == (1, 9)
    assert tokens.shapes == ((4, 9), (6, 9))


def attention(heads: list[list[int]] | None, ours: list[torch.Tensor], theirs: list[torch.Tensor], **size: Any) -> Any:
    method = AttentionKD('a', blocks=[0], path='t{}', heads=heads, queries=None)
    nobody: Any = None
    seen = StepContext({'t0': ours}, {'t0': theirs}, nobody, nobody, **size)
    weight = Weight(parse_schedule(1.0, 'a'))
    (level,) = seen_levels(Pair('a', method, weight), seen)
    return level, float(method.distance(seen))


def test_attention_is_that_of_the_heads_that_are_looked_at() -> None:
    ours, theirs = [rand(1, 2, 16, 8, seed=n) for n in (1, 2)], [rand(1, 4, 16, 8, seed=n) for n in (3, 4)]
    level, distance = attention([[3, 1]], ours, theirs, image_size=(64, 64))
    rows = [(q @ k.transpose(2, 3) / 8**0.5).softmax(3)[0] for q, k in (ours, [side[:, [3, 1]] for side in theirs])]
    divergence = (rows[1] * (rows[1] / rows[0]).log()).sum(2)
    assert level.heads == (3, 1)
    assert level.by_head == pytest.approx(divergence.mean(1).tolist(), rel=1e-4)
    assert level.numbers['KL'] == pytest.approx(distance, rel=1e-5)
    query = int(divergence.mean(0).argmax())
    torch.testing.assert_close(level.teacher, 16 * rows[1].mean(0)[query].view(4, 4))
    torch.testing.assert_close(level.student, 16 * rows[0].mean(0)[query].view(4, 4))
    assert level.teacher.mean() == pytest.approx(1)
    assert level.mark == ((query // 4 + 0.5) / 4, (query % 4 + 0.5) / 4)
    assert level.title == f't0\nquery {query // 4 + 1}, {query % 4 + 1}: the largest KL'


def test_class_tokens_are_left_out_of_the_map_and_no_query() -> None:
    ours, theirs = ([rand(1, 2, 17, 8, seed=n) for n in pair] for pair in ((1, 2), (3, 4)))
    ours[0][:, :, 0] += 50  # the class token differs most
    level, _ = attention(None, ours, theirs, image_size=(64, 64))
    assert level.teacher.shape == (4, 4)
    assert level.mark is not None
    assert level.heads == (0, 1)


def test_windows_are_squares_without_a_place_in_the_image() -> None:
    ours, theirs = ([rand(6, 2, 9, 8, seed=n) for n in pair] for pair in ((1, 2), (3, 4)))
    ours[0][4] += 3
    level, _ = attention(None, ours, theirs, image_size=(64, 96))
    assert level.teacher.shape == (3, 3)
    assert level.mark is None
    assert 'window 5 of 6, query' in level.title
    odd, _ = attention(None, *([side[:, :, :7] for side in sides] for sides in (ours, theirs)), image_size=(64, 96))
    assert odd.teacher.shape == (1, 7)


def test_tokens_on_no_grid_are_a_row() -> None:
    level, _ = attention(None, *([rand(1, 2, 11, 8, seed=n) for n in pair] for pair in ((1, 2), (3, 4))))
    assert level.teacher.shape == (1, 11)
    assert level.mark is None


def test_means_leave_out_what_a_level_lacks() -> None:
    levels = [
        SeenLevel('', torch.ones(1, 1), torch.ones(1, 1), ((1,), (1,)), numbers)
        for numbers in ({'a': 1.0, 'b': None, 'c': 2.0}, {'a': 3.0, 'b': 1.0, 'c': float('nan')})
    ]
    assert mean_numbers(levels) == {'a': 2.0, 'b': None, 'c': None}
    assert mean_numbers([]) == {}


def test_methods_that_compare_relations_of_maps_stay_as_they_come() -> None:
    method = pair(dict(type='kdplugin.AttentionTransferLoss')).method
    assert isinstance(method, TapLoss)
    ours = rand(1, 4, 3, 3)
    assert method.compared(context([ours], [ours]))[0][0] is ours
