"""Head counts come from what is given, from tables, norms and rotary tables; otherwise they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from kdplugin.errors import ConfigError
from kdplugin.weights.projection.head_counts import head_units
from kdplugin.weights.projection.layer_slots import Layer, Slot


def layer(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> Layer:
    path = name.removesuffix('.weight')
    return Layer(path, {'weight': Slot(0, 0, name, name, old, new)})


def units(*inside: Layer, **given: Any) -> tuple[int, int]:
    return head_units('attn', (48, 24), inside, **given)


def test_given_counts_come_first() -> None:
    table = layer('attn.relative_position_bias_table', (9, 6), (9, 3))
    assert units(table, heads={'source': 4, 'target': 2}) == (12, 12)
    assert units(table, heads={'source': 4, 'target': 4}) == (12, 6)
    assert units(heads=4) == (12, 12)
    assert units(head_dim=8) == (8, 8)
    assert units(head_dim=(8, 4)) == (8, 4)


@pytest.mark.parametrize(
    ('inside', 'expected'),
    [
        (layer('attn.relative_position_bias_table', (9, 6), (9, 4)), (8, 6)),
        (layer('attn.relative_attention_bias.weight', (32, 6), (32, 4)), (8, 6)),
        (layer('attn.logit_scale', (6, 1, 1), (3, 1, 1)), (8, 8)),
        (layer('attn.rel_pos_h', (13, 8), (13, 6)), (8, 6)),
        (layer('attn.q_norm.weight', (8,), (6,)), (8, 6)),
    ],
)
def test_tables_and_norms_tell(inside: Layer, expected: tuple[int, int]) -> None:
    assert units(inside) == expected


def test_a_norm_over_all_heads_does_not_tell_but_rotary_tables_do() -> None:
    whole = layer('attn.norm_q.weight', (48,), (24,))
    assert units(whole, rotary=(16, 8)) == (16, 8)
    with pytest.raises(
        ConfigError, match=r'Expected the number of heads of attn \(48 to 24\) but its tensors do not tell'
    ):
        units(whole)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (
            {'heads': 5},
            r'Expected whole heads in attn \(48 to 24\) but heads of 0 to 0 do not divide it\. Give the number',
        ),
        ({'head_dim': 16}, r'heads of 16 to 16 do not divide it'),
        (
            {'heads': {'target': 2}},
            r"Expected heads like \{'source': 16, 'target': 8\} but got \{'target': 2\}\. Give both",
        ),
        ({'heads': {'source': 4, 'student': 2}}, r'Expected heads like'),
        ({'heads': 0}, r'Expected heads like'),
    ],
)
def test_counts_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        units(**given)
