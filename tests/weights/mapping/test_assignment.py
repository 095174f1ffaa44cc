"""Evidence for pairs of layers, and margins by exchange against trying every other assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdplugin.weights.mapping.assignment import (
    AMBIGUOUS,
    EXACT,
    GAIN,
    ORDINAL,
    PART,
    TRANSPOSED,
    evidence,
    exchange_margins,
    fit,
    list_likeness,
    order_likeness,
    solve,
)
from kdplugin.weights.units import Atom, Unit, build_units

NUMBERS = np.random.default_rng(0)


def unit(path: str, shape: tuple[int, ...], bias: int | None = None, part: str | None = None) -> Unit:
    atoms = {'weight': Atom(f'{path}.weight', shape)}
    if bias is not None:
        atoms['bias'] = Atom(f'{path}.bias', (bias,))
    return Unit(path, atoms, part)


def brute_margins(scores: np.ndarray) -> list[float]:
    """For each pair of the best assignment: the loss of the best one a swap, or a move to a free place, away."""
    rows, columns = scores.shape
    small = min(rows, columns)
    every = (
        [(r, c) for r, c in zip(chosen, places, strict=True)]
        for chosen in itertools.combinations(range(rows), small)
        for places in itertools.permutations(range(columns), small)
    )
    rated = [(sum(float(scores[pair]) for pair in pairs), frozenset(pairs)) for pairs in every]
    top, best = max(rated, key=lambda item: item[0])
    near = [(total, pairs) for total, pairs in rated if pairs != best and len(best - pairs) <= 2]
    near = [(total, pairs) for total, pairs in near if len(best - pairs) == 1 or _is_swap(best - pairs, pairs - best)]
    return [
        min(1.0, min((top - total for total, pairs in near if pair not in pairs), default=1.0)) for pair in sorted(best)
    ]


def _is_swap(gone: frozenset[tuple[int, int]], come: frozenset[tuple[int, int]]) -> bool:
    return {r for r, _ in gone} == {r for r, _ in come} and {c for _, c in gone} == {c for _, c in come}


@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (3, 3), (4, 4), (2, 4), (4, 2), (3, 5)])
def test_margins_equal_brute_force(shape: tuple[int, int]) -> None:
    for _ in range(20):
        scores = NUMBERS.random(shape).astype(np.float32)
        found = sorted(solve(scores), key=lambda choice: choice.row)
        assert [choice.margin for choice in found] == pytest.approx(brute_margins(scores), abs=1e-5)


def test_the_total_is_the_highest() -> None:
    """Taking the highest score first would give 0.9 + 0.1."""
    scores = np.array([[0.9, 0.8], [0.8, 0.1]], dtype=np.float32)
    assert {(choice.row, choice.column) for choice in solve(scores)} == {(0, 1), (1, 0)}


def test_alike_rows_have_no_margin_and_name_each_other() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.9]], dtype=np.float32)
    found = {choice.row: choice for choice in solve(scores)}
    assert found[0].margin == found[1].margin == 0
    assert (found[0].rival, found[1].rival) == (1, 0)
    assert found[2].margin == 1.0 > AMBIGUOUS


def test_a_free_row_is_a_rival_and_a_free_column_has_none() -> None:
    tall = solve(np.array([[0.5], [0.48]], dtype=np.float32))[0]
    assert (tall.row, tall.rival) == (0, 1)
    assert tall.margin == pytest.approx(0.02)
    wide = solve(np.array([[0.5, 0.48]], dtype=np.float32))[0]
    assert (wide.column, wide.rival) == (0, None)
    assert wide.margin == pytest.approx(0.02)


def test_a_lone_pair_is_sure() -> None:
    assert solve(np.array([[-3.0]], dtype=np.float32))[0].margin == 1.0


def test_margins_of_an_assignment_that_is_not_the_best_can_be_negative() -> None:
    """Where order has decided against the names, the names alone say so."""
    margins, _ = exchange_margins(
        np.array([[0.1, 0.9], [0.9, 0.1]], dtype=np.float32), np.array([0, 1]), np.array([0, 1])
    )
    assert margins == pytest.approx([-1.6, -1.6])


def test_evidence_is_likeness_ordinals_and_equal_paths() -> None:
    scores = evidence(['a.norm1', 'a.norm2'], ['x.norm1', 'a.norm2'])
    assert scores[0, 1] < scores[0, 0] < scores[1, 1]
    assert scores[1, 1] == pytest.approx(1 + ORDINAL + EXACT)


def test_words_that_both_sides_have_count_half_of_the_likeness() -> None:
    """'q' is all that both share; as words of all four paths q is one of three between the first two."""
    same, other = evidence(['x.q'], ['y.q', 'y.k'])[0].tolist()
    assert 0.5 < same < 1
    assert other == 0


def test_words_of_modules_that_hold_all_paths_do_not_count() -> None:
    """mmdet's 'bbox_head' does not make its towers of classes regress boxes."""
    left = ['bbox_head.cls_convs', 'bbox_head.reg_convs']
    right = ['head.classification_head.conv', 'head.regression_head.conv']
    scores = evidence(left, right)
    assert scores[0, 0] == pytest.approx(scores[1, 1])
    assert scores[0, 0] > scores[0, 1] + 0.2
    assert scores[0, 1] == pytest.approx(scores[1, 0])


def test_parts_of_attention_attract_their_like() -> None:
    one = [unit('a.q', (4, 4), part='q'), unit('a.proj', (4, 4))]
    two = [unit('b.q', (4, 4), part='q'), unit('b.k', (4, 4), part='k'), unit('b.o', (4, 4))]
    assert fit(one, two).tolist() == [[PART, -2 * PART, -0.5 * PART], [-0.5 * PART, -0.5 * PART, 0]]


def test_transposed_biased_and_looked_up_layers_cost() -> None:
    like = unit('a', (8, 4), 8)
    others = [
        unit('b', (8, 4), 8),
        unit('b', (4, 8), 8),
        unit('b', (8, 4)),
        unit('b', (8, 4), 4),
        unit('tok_embed', (8, 4)),
    ]
    equal, turned, bare, other_bias, table = fit([like], others)[0].tolist()
    assert equal == 0
    assert turned == pytest.approx(TRANSPOSED)
    assert bare == pytest.approx(-0.3)
    assert other_bias == pytest.approx(-0.3 - PART)
    assert table == pytest.approx(-0.3 - GAIN)


def test_a_norm_is_no_gain() -> None:
    assert fit([unit('norm', (8,), 8)], [unit('gamma', (8,)), unit('n', (8,), 8)]).tolist() == [[-GAIN, 0.0]]


def test_order_is_one_at_the_same_place_and_falls_with_the_distance() -> None:
    scores = order_likeness(5, 5)
    assert np.diag(scores).tolist() == [1.0] * 5
    assert (np.diff(scores[0]) < 0).all()
    assert scores[0].tolist() == pytest.approx([1.0, 0.375, 0.25, 0.125, 0.0])
    assert order_likeness(1, 1).item() == 1.0


def test_lists_of_one_length_pair_by_rank_though_indices_shift() -> None:
    left = ['a.10.x', 'a.2.x', 'a.3.x', 'b.0.x']
    right = ['c.1.y', 'c.2.y', 'c.9.y', 'd.0.y']
    assert list_likeness(left, right).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_lists_of_other_lengths_say_nothing() -> None:
    assert not list_likeness(['a.0', 'a.1'], ['b.0', 'b.1', 'b.2']).any()


def test_evidence_of_units_picks_the_right_half_of_a_fused_layer() -> None:
    one = build_units({'attn.qkv.weight': (12, 4)})
    two = build_units({f'self.{part}.weight': (4, 4) for part in ('value', 'key', 'query')})
    pairs = {(one[c.row].path, two[c.column].path) for c in solve(fit(one, two))}
    assert pairs == {('attn.q', 'self.q'), ('attn.k', 'self.k'), ('attn.v', 'self.v')}


def test_elements_of_one_list_have_places_however_deep_they_are() -> None:
    """DETR's box head: 'layers.0' and 'layers.1' are mmdet's 'layers.0.0' and 'layers.1'."""
    assert list_likeness(['a.layers.1', 'a.layers.0'], ['b.0.0', 'b.1']).tolist() == [[0, 1], [1, 0]]
    assert not list_likeness(['a.0.norm1', 'a.0.norm2'], ['b.0.x', 'b.0.y']).any()
