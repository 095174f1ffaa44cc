"""Layers whose rows or columns libraries put in another order are refused by name."""

from __future__ import annotations

import pytest

from kdplugin.weights.mapping.joins import unknown_orders
from kdplugin.weights.plan import Entry, Piece

Sides = tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]
LEVELS = (8, 16, 24)


def fusion(widths: tuple[int, ...] = (32, 32, 32), inputs: tuple[int, ...] = LEVELS) -> Sides:
    source, target = ({
        f'{head}.{level}.{layer}.weight': (width, channels, 1, 1)
        for level, (width, channels) in enumerate(zip(widths, inputs, strict=True))
    } for head, layer in (('head.linear_c', 'proj'), ('decode.convs', 'conv')))  # fmt: skip
    return {**source, 'head.fuse.weight': (32, sum(widths), 1, 1)}, {
        **target,
        'decode.fusion.conv.weight': (32, sum(widths), 1, 1),
    }


def ssd(classes: int = 21, anchors: tuple[int, ...] = (4, 6)) -> Sides:
    source, target = {}, {}
    for level, number in enumerate(anchors):
        for rows, old, new in ((number * classes, 'class_head', 'cls_convs'), (4 * number, 'box_head', 'reg_convs')):
            source |= {f'head.{old}.{level}.weight': (rows, 16, 3, 3), f'head.{old}.{level}.bias': (rows,)}
            target |= {f'bbox.{new}.{level}.0.weight': (rows, 16, 3, 3), f'bbox.{new}.{level}.0.bias': (rows,)}
    return source, target


def refused(sides: Sides, reason: str = '') -> dict[str, str]:
    entries = [
        Entry(target, sides[1][target], 'renamed', (Piece(source),), score=0.9, margin=1.0, reason=reason)
        for source, target in zip(*sides, strict=True)
    ]
    return {entry.target: entry.reason for entry in unknown_orders(entries, sides) if entry.kind == 'refused'}


def test_a_layer_that_joins_branches_of_one_list_is_refused() -> None:
    found = refused(fusion())
    assert list(found) == ['decode.fusion.conv.weight']
    assert found['decode.fusion.conv.weight'].startswith('its inputs are the outputs of head.linear_c side by side')


def test_equal_values_settle_the_order() -> None:
    assert not refused(fusion(), 'same values')


@pytest.mark.parametrize(
    'sides',
    [fusion((32, 16, 48)), fusion(inputs=(8, 32, 32)), fusion((32, 32), (8, 16))],
    ids=['other widths', 'one after the other', 'two'],
)
def test_what_is_no_list_of_branches_stays(sides: Sides) -> None:
    assert not refused(sides)


def test_the_same_library_stays_inside_a_wrapper_too() -> None:
    target = fusion()[1]
    assert not refused((target, {f'model.{name}': shape for name, shape in target.items()}))


def test_a_layer_far_below_that_has_as_many_inputs_by_chance_stays() -> None:
    source, target = fusion()
    source['head.blocks.0.mlp.fc.weight'] = source.pop('head.fuse.weight')
    target['decode.stages.0.mlp.linear.weight'] = target.pop('decode.fusion.conv.weight')
    assert not refused((source, target))


def test_blocks_of_more_than_one_layer_are_no_branches() -> None:
    source, target = fusion()
    more = {f'head.linear_c.{index}.other.weight': (7, 7) for index in range(3)}
    other = {f'decode.convs.{index}.other.weight': (7, 7) for index in range(3)}
    assert not refused(({**source, **more}, {**target, **other}))


def test_class_scores_by_anchor_are_refused_and_boxes_stay() -> None:
    found = refused(ssd())
    assert sorted(found) == [f'bbox.cls_convs.{level}.0.{kind}' for level in (0, 1) for kind in ('bias', 'weight')]
    assert all('the background may be the first or the last' in why for why in found.values())


@pytest.mark.parametrize('sides', [ssd(anchors=(1, 1)), ssd(classes=4), ssd(anchors=(64, 64))])
def test_one_box_a_place_and_towers_of_one_width_stay(sides: Sides) -> None:
    assert not refused(sides)
