"""Which layer pairs with which: names, order, lists, attention, and what cannot be known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import nn
from two_vits import FusedVit, SplitVit

from kdplugin.weights.mapping.assignment import AMBIGUOUS, Match
from kdplugin.weights.mapping.matching import Matcher
from kdplugin.weights.mapping.tree import Node
from kdplugin.weights.projection.layers import choose_layers
from kdplugin.weights.units import build_units, is_definition_order

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def uniform(left: Sequence[Node], right: Sequence[Node]) -> Sequence[int]:
    return choose_layers(len(left), min(len(left), len(right)), 'uniform')


def matcher_of(source: Shapes, target: Shapes) -> Matcher:
    ordered = is_definition_order(source) and is_definition_order(target)
    return Matcher(build_units(source), build_units(target), ordered=ordered, choose_layers=uniform)


def paired(source: nn.Module | Shapes, target: nn.Module | Shapes) -> dict[str, str]:
    """Return {target path: source path} of all matches that are not ambiguous."""
    sides = [shapes_of(side) if isinstance(side, nn.Module) else side for side in (source, target)]
    matcher = matcher_of(*sides)
    sure = [match for match in matcher.run().values() if match.margin >= AMBIGUOUS]
    return {matcher.units[1][match.target].path: matcher.units[0][match.source].path for match in sure}


def linear(*paths: str, size: int = 4) -> dict[str, tuple[int, ...]]:
    return {f'{path}.{leaf}': shape for path in paths for leaf, shape in (('weight', (size, size)), ('bias', (size,)))}


def shuffled(shapes: Shapes, seed: int = 0) -> dict[str, tuple[int, ...]]:
    names = list(shapes)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    return {names[index]: shapes[names[index]] for index in order}


@pytest.mark.parametrize('seed', range(3))
def test_equal_names_pair_whatever_the_order(seed: int) -> None:
    shapes = shapes_of(FusedVit())
    found = paired(shuffled(shapes, seed), shapes)
    assert found == {unit.path: unit.path for unit in build_units(shapes)}


def test_equal_names_are_anchors_among_alike_layers_of_another_order() -> None:
    assert paired(linear('a', 'b', 'c'), linear('c', 'a', 'b')) == {'a': 'a', 'b': 'b', 'c': 'c'}


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        (['net.encoder.fc', 'net.decoder.fc'], ['x.dec.fc', 'x.enc.fc']),
        (['mlp.gate_fc', 'mlp.up_fc'], ['mlp.up', 'mlp.gate']),
        (['f.w1', 'f.w2'], ['g.w2', 'g.w1']),
        (['h.fc_cls', 'h.fc_reg'], ['p.bbox_pred', 'p.cls_score']),
        (['m.conv_cls', 'm.conv_reg', 'm.conv_obj'], ['h.obj_preds', 'h.reg_preds', 'h.cls_preds']),
    ],
)
def test_names_beat_order(source: list[str], target: list[str]) -> None:
    assert paired(linear(*source), linear(*target)) == dict(zip(target, source[::-1], strict=True))


def test_order_decides_where_names_say_nothing() -> None:
    matcher = matcher_of(linear('p.a', 'p.b', 'p.c'), linear('q.d', 'q.e', 'q.f'))
    matches = matcher.run()
    assert {match.target: match.source for match in matches.values()} == {0: 0, 1: 1, 2: 2}
    assert all('by order alone' in match.why for match in matches.values())


def test_without_names_and_order_alike_layers_are_ambiguous_and_name_each_other() -> None:
    source, target = build_units(linear('p.a', 'p.b')), build_units(linear('q.d', 'q.e'))
    matches = Matcher(source, target, ordered=False, choose_layers=uniform).run()
    assert {match.margin for match in matches.values()} == {0.0}
    assert {match.rivals for match in matches.values()} == {(0,), (1,)}


def test_lists_of_one_length_pair_in_order_though_indices_shift() -> None:
    """Name likeness alone would pair 1 with 1."""
    source = linear(*(f'layers.{index}.fc' for index in range(1, 13)))
    target = linear(*(f'blocks.{index}.fc' for index in range(12)))
    wanted = {f'blocks.{index}.fc': f'layers.{index + 1}.fc' for index in range(12)}
    assert paired(source, target) == wanted
    alphabetical = {name: source[name] for name in sorted(source)}
    assert paired(alphabetical, target) == wanted


NAMES = {
    'attn.q': 'attention.attention.q',
    'attn.k': 'attention.attention.k',
    'attn.v': 'attention.attention.v',
    'attn.proj': 'attention.output.dense',
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}
AROUND = {
    'cls_token': 'embeddings.cls_token',
    'pos_embed': 'embeddings.position_embeddings',
    'patch_embed.proj': 'embeddings.patch_embeddings.projection',
    'norm': 'layernorm',
    'head': 'classifier',
}


def split_names(layers: Sequence[int]) -> dict[str, str]:
    """Return {path in a fused ViT: path in a split one} where its blocks are these layers."""
    inside = [(i, old, one, two) for i, old in enumerate(layers) for one, two in NAMES.items()]
    return AROUND | {f'blocks.{i}.{one}': f'encoder.layer.{old}.{two}' for i, old, one, two in inside}


def test_two_libraries() -> None:
    assert paired(SplitVit(), FusedVit()) == split_names(range(3))
    assert paired(FusedVit(), SplitVit()) == {split: fused for fused, split in split_names(range(3)).items()}


@pytest.mark.parametrize('seed', range(3))
def test_two_libraries_without_order(seed: int) -> None:
    """Shuffled names of a file still tell the lists; what they don't tell is ambiguous, not wrong."""
    found = paired(shuffled(shapes_of(SplitVit()), seed), FusedVit())
    right = split_names(range(3))
    assert {path: old for path, old in found.items() if right[path] != old} == {}
    assert {path for path in found if 'attn' in path} == {path for path in right if 'attn' in path}


def test_a_shallower_stack_takes_the_chosen_layers_and_says_so() -> None:
    matcher = matcher_of(shapes_of(SplitVit(depth=5)), shapes_of(FusedVit(depth=3)))
    found = {matcher.units[1][j].path: matcher.units[0][m.source].path for j, m in matcher.run().items()}
    assert found == split_names([0, 2, 4])
    assert matcher.notes == ['blocks: 3 modules for 5 alike ones of the source, taken from [0, 2, 4]']


def test_stacks_of_one_shape_go_where_the_layers_of_unique_shape_beside_them_went() -> None:
    """CLIP's towers in one width: names and order say the opposite of the convolution beside the second one."""

    def tower(path: str) -> dict[str, tuple[int, ...]]:
        return linear(*(f'{path}.{block}.{layer}' for block in range(2) for layer in ('a', 'b')))

    source = {**tower('blocks'), 'words.weight': (9, 4), 'right.conv.weight': (4, 3, 2, 2), **tower('right.blocks')}
    target = {'p.conv.weight': (4, 3, 2, 2), **tower('p.layers'), 'q.words.weight': (9, 4), **tower('q.layers')}
    found = paired(source, target)
    assert len(found) == 10
    assert all(old.startswith('right') == new.startswith('p') for new, old in found.items())


def test_lists_of_one_length_come_first_and_tell_what_is_beside_them() -> None:
    """DeepLab's branches: torchvision's pooling is the last element of a list, mmseg's stands before the list."""
    branch = {f'b.{n}.weight': (4, 4, *kernel) for n, kernel in enumerate([(1, 1), (3, 3), (3, 3), (1, 1)])}
    norms = {name.replace('weight', f'bn.{leaf}'): (4,) for name in branch for leaf in ('weight', 'bias')}
    source = {name: shape for n in range(4) for name, shape in {**branch, **norms}.items() if f'b.{n}.' in name}
    target = {re.sub('bn', 'norm', re.sub(r'b\.3', 'pool.1', name)): shape for name, shape in source.items()}
    target = {re.sub(r'^b\.', 'modules.', name): shape for name, shape in target.items()}
    target = dict(sorted(target.items(), key=lambda item: not item[0].startswith('pool')))
    found = paired(source, target)
    assert (found['pool.1'], found['pool.1.norm']) == ('b.3', 'b.3.bn')
    assert (found['modules.0'], found['modules.0.norm']) == ('b.0', 'b.0.bn')


def test_layers_are_the_callers_choice() -> None:
    source, target = (build_units(shapes_of(model)) for model in (SplitVit(depth=5), FusedVit(depth=2)))
    matcher = Matcher(source, target, choose_layers=lambda left, right: (1, 3))
    found = {target[j].path: source[m.source].path for j, m in matcher.run().items()}
    assert found == split_names([1, 3])


def test_layers_that_a_choice_names_twice_are_used_once() -> None:
    source = build_units(linear(*(f'l.{i}.{name}' for i in range(3) for name in ('fc1', 'fc2'))))
    target = build_units(linear(*(f'b.{i}.{name}' for i in range(2) for name in ('fc1', 'fc2'))))
    matches = Matcher(source, target, choose_layers=lambda left, right: (1, 1)).run()
    assert [matches[j].source for j in (0, 1)] == [2, 3]
    assert len({match.source for match in matches.values()}) == len(matches)


def test_batch_norms_are_told_apart_by_their_neighbours() -> None:
    """All norms are alike; each belongs to the convolution before it."""

    def stage(names: Sequence[str], kernels: Sequence[int]) -> nn.Module:
        layers: dict[str, nn.Module] = {}
        for name, norm, kernel in zip(names[::2], names[1::2], kernels, strict=True):
            layers |= {name: nn.Conv2d(4, 4, kernel, bias=False), norm: nn.BatchNorm2d(4)}
        return nn.ModuleDict({'stage': nn.ModuleDict(layers)})

    one = stage(['conv1', 'bn1', 'conv2', 'bn2', 'conv3', 'bn3'], [1, 3, 5])
    two = stage(['a', 'b', 'c', 'd', 'e', 'f'], [5, 1, 3])
    wanted = {'a': 'conv3', 'b': 'bn3', 'c': 'conv1', 'd': 'bn1', 'e': 'conv2', 'f': 'bn2'}
    assert paired(one, two) == {f'stage.{new}': f'stage.{old}' for new, old in wanted.items()}


def test_parts_of_attention_never_swap() -> None:
    source = linear('sa.q_proj', 'sa.k_proj', 'sa.v_proj', 'sa.out_proj')
    target = linear('attn.value', 'attn.output', 'attn.query', 'attn.key')
    assert paired(source, target) == {
        'attn.q': 'sa.q',
        'attn.k': 'sa.k',
        'attn.v': 'sa.v',
        'attn.output': 'sa.out_proj',
    }


def test_shapes_must_agree() -> None:
    assert paired(linear('a', size=4), linear('a', size=5)) == {}
    matcher = Matcher(
        build_units(linear('a', size=4)),
        build_units(linear('b', size=5)),
        choose_layers=uniform,
        key=lambda unit: len(unit.main.core),
    )
    assert [(m.source, j) for j, m in matcher.run().items()] == [(0, 0)]


def test_anchors_are_kept_and_lead_what_is_around_them() -> None:
    """By their names and order 'one' is 'p'; an anchor inside says that it is 'q'."""
    source = build_units({**linear('one.a'), **linear('one.b', size=6), **linear('two.a'), **linear('two.b', size=6)})
    target = build_units({**linear('p.x'), **linear('p.y', size=6), **linear('q.x'), **linear('q.y', size=6)})
    paths = {unit.path: unit.order for unit in (*source, *target)}

    def run(anchors: Sequence[Match]) -> dict[str, str]:
        found = Matcher(source, target, choose_layers=uniform).run(anchors)
        return {target[j].path: source[m.source].path for j, m in found.items()}

    assert run([]) == {'p.x': 'one.a', 'p.y': 'one.b', 'q.x': 'two.a', 'q.y': 'two.b'}
    anchors = [Match(paths['one.a'], paths['q.x'], 1.0, 1.0, 1.0), Match(paths['two.a'], paths['p.x'], 1.0, 1.0, 1.0)]
    assert run(anchors) == {'p.x': 'two.a', 'p.y': 'two.b', 'q.x': 'one.a', 'q.y': 'one.b'}


def test_no_source_layer_is_used_twice() -> None:
    for source, target in ((SplitVit(depth=2), FusedVit(depth=4)), (SplitVit(depth=4), FusedVit(depth=2))):
        matches = matcher_of(shapes_of(source), shapes_of(target)).run()
        assert len({match.source for match in matches.values()}) == len(matches)


def test_a_prefix_changes_nothing() -> None:
    shapes = shapes_of(nn.ModuleDict({'blocks': nn.ModuleList(SplitVit(depth=4) for _ in range(20))}))
    found = paired({f'old.{name}': shape for name, shape in shapes.items()}, shapes)
    assert len(found) > 700
    assert all(old == f'old.{new}' for new, old in found.items())


def test_neighbours_in_sorted_names_are_chance() -> None:
    sizes = {'down': (4, 9), 'gate': (8, 4), 'up': (8, 4), 'w1': (8, 4), 'w2': (4, 9), 'w3': (8, 4)}

    def layers(*paths: str) -> dict[str, tuple[int, ...]]:
        shapes = [sizes[path.rpartition('.')[2]] for path in paths]
        ends = [(path, shape, leaf) for path, shape in zip(paths, shapes, strict=True) for leaf in ('bias', 'weight')]
        return {f'{path}.{leaf}': shape if leaf == 'weight' else shape[:1] for path, shape, leaf in ends}

    found = paired(layers('m.down', 'm.gate', 'm.up'), layers('n.w1', 'n.w2', 'n.w3'))
    assert found == {'n.w2': 'm.down'}
