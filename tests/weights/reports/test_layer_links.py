from __future__ import annotations

import pytest

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.reports.layer_links import LayerLinks, Link, layer_links, layers_of, stack_lines
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.reports.report_text import report_text

RESNET = [
    'conv1.weight', 'bn1.weight', 'bn1.running_mean',
    *(f'layer{s}.{n}.{part}.weight' for s in (1, 2) for n in (0, 1) for part in ('conv1', 'bn1', 'conv2', 'bn2')),
    'layer2.0.downsample.0.weight', 'layer2.0.downsample.1.weight', 'fc.bias',
]  # fmt: skip


def layers(names: list[str]) -> list[str]:
    return list(dict.fromkeys(layers_of(names).values()))


def test_a_resnet_has_its_blocks() -> None:
    blocks = ['layer1.0', 'layer1.1', 'layer2.0', 'layer2.1']
    assert layers(RESNET) == ['conv1', 'bn1', *blocks, 'fc']
    assert layers_of(RESNET)['layer2.0.downsample.1.weight'] == 'layer2.0'


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['cls_token', 'model.pos_embed', 'model.norm.bias'], ['cls_token', 'model.pos_embed', 'model.norm']),
        ([f'h.{n}.mlp.{k}.weight' for n in (0, 1) for k in (0, 2)], ['h.0', 'h.1']),
        (['0.weight', '2.weight'], ['0', '2']),
        ([f'{n}.fc.weight' for n in (0, 1)], ['0', '1']),
        (
            [f'stages.{s}.blocks.{n}.attn.w' for s in (0, 1) for n in (0, 1)],
            ['stages.0.blocks.0', 'stages.0.blocks.1', 'stages.1.blocks.0', 'stages.1.blocks.1'],
        ),
        (['net.0.proj.weight', 'net.2.weight'], ['net.0.proj', 'net.2']),
    ],
    ids=['single modules', 'layers inside blocks', 'plain list', 'bare stack', 'stages of blocks', 'unlike children'],
)
def test_layers_are_blocks_of_the_innermost_stack_or_modules(names: list[str], expected: list[str]) -> None:
    assert layers(names) == expected


def plan(*entries: Entry, unused: tuple[str, ...] = ()) -> ProjectionPlan:
    return ProjectionPlan('a', 'b', entries, unused=dict.fromkeys(unused, 'left'))


def block(side: str, number: int) -> list[str]:
    return [f'{side}.{number}.fc1.weight', f'{side}.{number}.fc2.weight']


def test_links_weigh_energy_by_parameters() -> None:
    """1 - 0.5^2 = 0.75 over 30 values and 1 - 0 = 1 over 10: 0.8125."""
    entries = [
        Entry('layers.0.fc1.weight', (30,), 'projected', (Piece('blocks.0.fc1.weight'),)),
        Entry('layers.0.fc2.weight', (10,), 'projected', (Piece('blocks.0.fc2.weight'),)),
        Entry('layers.1.fc1.weight', (6,), 'projected', (Piece('blocks.2.fc1.weight'),)),
        Entry('layers.1.fc2.weight', (2,), 'random'),
    ]
    names = [name for number in range(3) for name in block('blocks', number)]
    report = PlanReport(
        plan(*entries), {'layers.0.fc1.weight': 0.5, 'layers.0.fc2.weight': 0.0}, dict.fromkeys(names, (40,))
    )
    assert layer_links(report) == LayerLinks(
        targets=['layers.0', 'layers.1'],
        sources=['blocks.0', 'blocks.1', 'blocks.2'],
        links=[Link('layers.0', 'blocks.0', 40, 0.8125), Link('layers.1', 'blocks.2', 6, None)],
        kinds={'layers.0': {'projected': 40}, 'layers.1': {'projected': 6, 'random': 2}},
    )


def test_an_error_above_one_keeps_no_energy() -> None:
    entry = Entry('w', (4,), 'projected', (Piece('w'),))
    assert layer_links(PlanReport(plan(entry), {'w': 1.5})).links == [Link('w', 'w', 4, 0.0)]


def test_a_tensor_of_several_layers_links_to_each_once() -> None:
    pieces = (Piece('q.weight'), Piece('k.weight'), Piece('q.bias'))
    entry = Entry('qk.weight', (6,), 'converted', pieces, join=0)
    links = layer_links(PlanReport(plan(entry), {'qk.weight': 0.0})).links
    assert links == [Link('qk', 'q', 6, 1.0), Link('qk', 'k', 6, 1.0)]


def test_sources_of_a_sorted_file_come_in_the_order_of_their_numbers() -> None:
    names = sorted(f'blocks.{n}.fc.{leaf}' for n in range(12) for leaf in ('weight', 'bias'))
    entry = Entry('w', (1,), 'random')
    links = layer_links(PlanReport(plan(entry), {}, dict.fromkeys(names, (1,))))
    assert links.sources == [f'blocks.{n}' for n in range(12)]


def test_without_shapes_used_and_unused_sources_are_known_from_the_plan() -> None:
    entry = Entry('w', (1,), 'renamed', (Piece('stem.weight'),))
    assert layer_links(PlanReport(plan(entry, unused=('head.weight',)))).sources == ['stem', 'head']


def moved(pairs: list[tuple[int, int]]) -> PlanReport:
    entries = [
        Entry(f'layers.{at}.{part}.weight', (2,), 'renamed', (Piece(f'net.blocks.{number}.{part}.weight'),))
        for at, number in pairs
        for part in ('fc1', 'fc2')
    ]
    return PlanReport(plan(Entry('head.0.weight', (1,), 'renamed', (Piece('fc.weight'),)), *entries))


def test_which_block_came_from_which_is_one_line_for_each_pair_of_stacks() -> None:
    line = 'layers <- net.blocks: 0 from 0, 1 from 3, 2 from 5'
    assert stack_lines(moved([(0, 0), (1, 3), (2, 5)])) == [line]
    assert line in report_text(moved([(0, 0), (1, 3), (2, 5)])).splitlines()


def test_blocks_that_keep_their_numbers_need_no_line() -> None:
    assert stack_lines(moved([(0, 0), (1, 1)])) == []
