"""Ordinals: numbers by rank among their like, words by first and last, and when both sides agree."""

from __future__ import annotations

import pytest

from kdplugin.weights.mapping.ordinals import Ordinal, agreement, ordinals


@pytest.mark.parametrize(
    ('path', 'number', 'first', 'last'),
    [
        ('blocks.0.norm1', 1, True, False),
        ('blocks.3.norm2', 2, False, True),
        ('mlp.fc12', 12, False, True),
        ('layer.0.layernorm_before', None, True, False),
        ('layer.0.layernorm_after', None, False, True),
        ('blocks.3.post_norm', None, False, True),
        ('x.pre_norm', None, True, False),
        ('decoder.final_layer_norm', None, False, True),
    ],
)
def test_alone_a_name_says_what_is_written(path: str, number: int | None, first: bool, last: bool) -> None:
    assert ordinals([path]) == [Ordinal(number, 0, 1, first, last)]


@pytest.mark.parametrize('path', ['blocks.3', 'blocks.3.norm', 'layer1.conv', 'norm', ''])
def test_without_siblings_indices_and_plain_names_say_nothing(path: str) -> None:
    assert ordinals([path]) == [None]


def test_numbers_are_ranked_among_names_that_differ_by_them_alone() -> None:
    found = ordinals(['a.norm2', 'a.norm3', 'a.norm1', 'b.norm7', 'a.scale2'])
    assert [(one.rank, one.count) for one in found if one] == [(1, 3), (2, 3), (0, 3), (0, 1), (0, 1)]
    assert [one.last for one in found if one] == [False, True, False, True, True]


def test_a_number_that_all_share_says_less_than_that_of_the_module_around() -> None:
    """DINOv3: 'lambda1' is in both, the scale around it is the first or the second."""
    paths = ['a.layer_scale1.lambda1', 'a.layer_scale2.lambda1']
    assert [(one.rank, one.count) for one in ordinals(paths) if one] == [(0, 2), (1, 2)]
    assert agreement(paths, ['b.gamma_1', 'b.gamma_2']).tolist() == [[1, -1], [-1, 1]]


def test_the_last_of_three_is_the_final_one_and_the_second_is_not() -> None:
    """torch's decoder beside DETR's: norm2 belongs to the attention to the encoder."""
    numbers = ['l.norm1', 'l.norm2', 'l.norm3']
    words = ['l.self_attn_layer_norm', 'l.encoder_attn_layer_norm', 'l.final_layer_norm']
    assert agreement(numbers, words).tolist() == [[0, 0, -1], [0, 0, -1], [0, 0, 1]]
    assert agreement(words, numbers).tolist() == agreement(numbers, words).T.tolist()


def test_two_norms_by_word_and_by_number() -> None:
    assert agreement(['l.norm_before', 'l.norm_after'], ['x.ln_1', 'x.ln_2']).tolist() == [[1, -1], [-1, 1]]
    assert agreement(['l.norm_before'], ['x.pre_norm', 'x.post_norm']).tolist() == [[1, -1]]


def test_counting_from_zero_or_from_one_is_the_same() -> None:
    assert agreement(['l.norms.0', 'l.norms.1'], ['x.norm1', 'x.norm2']).tolist() == [[1, -1], [-1, 1]]


def test_lists_of_other_lengths_say_nothing_of_each_other() -> None:
    assert agreement(['l.0', 'l.1'], ['x.0', 'x.1', 'x.2']).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_names_of_other_counts_agree_as_written() -> None:
    assert agreement(['l.fc1', 'l.fc2', 'l.fc3'], ['x.fc1', 'x.fc3'])[:, 1].tolist() == [-1, -1, 1]


def test_nothing_said_is_no_evidence() -> None:
    assert agreement(['a.norm', 'a.norm1'], ['b.norm', 'b.norm2']).tolist() == [[0, 0], [0, -1]]
