"""Units: what belongs to one layer, fused attention taken apart, and the order of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdplugin.weights.units import Atom, Unit, build_units, is_definition_order

Shapes = dict[str, tuple[int, ...]]


def shapes_of(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def by_path(shapes: Shapes) -> dict[str, Unit]:
    return {unit.path: unit for unit in build_units(shapes)}


def paths(shapes: Shapes, order: dict[str, int] | None = None) -> list[str]:
    return [unit.path for unit in build_units(shapes, order)]


def test_the_tensors_of_a_layer_are_one_unit() -> None:
    units = build_units(shapes_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=False))))
    assert [(unit.path, list(unit.atoms), unit.order) for unit in units] == [
        ('0', ['weight', 'bias'], 0),
        ('1', ['weight', 'bias', 'mean', 'var', 'count'], 1),
        ('2', ['weight'], 2),
    ]
    assert units[0].main == Atom('0.weight', (4, 3, 3, 3))
    assert units[1].size == 4 * 4 + 1


@pytest.mark.parametrize(
    ('name', 'parts'), [('qkv', 'qkv'), ('in_proj', 'qkv'), ('c_attn', 'qkv'), ('kv', 'kv'), ('to_kv', 'kv')]
)
def test_fused_attention_is_taken_apart(name: str, parts: str) -> None:
    rows = 4 * len(parts)
    units = by_path({f'attn.{name}.weight': (rows, 6), f'attn.{name}.bias': (rows,)})
    assert list(units) == [f'attn.{part}' for part in parts]
    for rank, part in enumerate(parts):
        unit, where = units[f'attn.{part}'], (4 * rank, 4 * rank + 4)
        assert unit.part == part
        assert unit.atoms == {
            'weight': Atom(f'attn.{name}.weight', (4, 6), where),
            'bias': Atom(f'attn.{name}.bias', (4,), where),
        }


def test_more_queries_than_keys_are_told_by_the_layer_after_attention() -> None:
    """Phi-3: 24 rows of queries for 3 heads, 8 of keys and 8 of values for one."""
    units = by_path({'attn.o_proj.weight': (24, 24), 'attn.qkv_proj.weight': (40, 24)})
    assert [units[f'attn.{part}'].main.rows for part in 'qkv'] == [(0, 24), (24, 32), (32, 40)]


@pytest.mark.parametrize(('rows', 'inputs'), [(40, 17), (40, 26), (41, 24), (40, 40)])
def test_rows_that_cannot_be_queries_keys_and_values_stay_together(rows: int, inputs: int) -> None:
    units = by_path({'attn.o_proj.weight': (24, inputs), 'attn.qkv_proj.weight': (rows, 24)})
    assert [(unit.part, unit.main.rows) for unit in units.values()] == [(None, None)] * 2


def test_a_fused_gate_is_taken_apart() -> None:
    units = by_path({'mlp.gate_up_proj.weight': (16, 4), 'mlp.down_proj.weight': (4, 8)})
    assert [units[f'mlp.{part}'].main.rows for part in ('gate', 'up')] == [(0, 8), (8, 16)]


def test_multi_head_attention_of_torch_is_taken_apart() -> None:
    units = by_path(shapes_of(nn.MultiheadAttention(6, 2)))
    assert list(units) == ['q', 'k', 'v', 'out_proj']
    assert units['k'].atoms['bias'] == Atom('in_proj_bias', (6,), (6, 12))


def test_a_transposed_fused_layer_is_taken_apart_along_its_outputs() -> None:
    """GPT-2 keeps weights as (in, out)."""
    units = by_path({'h.0.attn.c_attn.weight': (6, 18), 'h.0.attn.c_attn.bias': (18,)})
    assert units['h.0.attn.v'].atoms == {
        'weight': Atom('h.0.attn.c_attn.weight', (6, 6), (12, 18), 1),
        'bias': Atom('h.0.attn.c_attn.bias', (6,), (12, 18)),
    }


def test_biases_beside_a_fused_weight_join_its_parts() -> None:
    """BEiT and EVA hold biases for q and v alone."""
    units = by_path({'attn.q_bias': (4,), 'attn.v_bias': (4,), 'attn.qkv.weight': (12, 4)})
    assert {path: list(unit.atoms) for path, unit in units.items()} == {
        'attn.q': ['bias', 'weight'],
        'attn.v': ['bias', 'weight'],
        'attn.k': ['weight'],
    }
    assert units['attn.q'].main == Atom('attn.qkv.weight', (4, 4), (0, 4))


def test_what_cannot_be_thirds_stays_whole() -> None:
    """Grouped-query attention has fewer rows for k and v."""
    unit = by_path({'attn.qkv.weight': (8, 4)})['attn.qkv']
    assert (unit.part, unit.main) == (None, Atom('attn.qkv.weight', (8, 4)))


def test_no_tensor_is_lost_where_two_claim_one_place() -> None:
    shapes = {'attn.q.weight': (4, 4), 'attn.q_proj.weight': (4, 4), 'attn.qkv.weight': (12, 4), 'attn.qkv.bias': (12,)}
    units = build_units(shapes)
    assert {atom.name for unit in units for atom in unit.atoms.values()} == set(shapes)
    assert by_path(shapes)['attn.q_proj.weight'].main == Atom('attn.q_proj.weight', (4, 4))


def test_gamma_without_beta_is_a_layer_of_its_own() -> None:
    assert list(by_path({'ls1.gamma': (4,)})) == ['ls1.gamma']
    norm = by_path({'norm.gamma': (4,), 'norm.beta': (4,)})['norm']
    assert list(norm.atoms) == ['weight', 'bias']


@pytest.mark.parametrize(
    ('shape', 'core'),
    [
        ((8, 4, 1, 1), (8, 4)),
        ((1, 7, 6), (7, 6)),
        ((1, 1, 6), (6,)),
        ((1, 4), (4,)),
        ((8, 1, 3, 3), (8, 1, 3, 3)),
        ((8, 4, 1, 2, 2), (8, 4, 2, 2)),
        ((8, 4, 3, 2, 2), (8, 4, 3, 2, 2)),
        ((), ()),
        ((1,), (1,)),
    ],
)
def test_core_is_the_shape_without_ones_at_the_ends(shape: tuple[int, ...], core: tuple[int, ...]) -> None:
    assert Atom('w', shape).core == core


def test_keys_agree_for_transposes_and_one_by_one_convolutions() -> None:
    def key(shape: tuple[int, ...], role: str = 'weight') -> object:
        return Unit('x', {role: Atom('x', shape)}).key

    assert key((8, 4)) == key((4, 8)) == key((8, 4, 1, 1))
    assert key((8, 4, 3, 3)) == key((4, 8, 3, 3)) != key((8, 4, 5, 5))
    assert key((8,)) != key((4,))
    assert key((8,)) != key((8,), 'mean')


def test_numbers_of_alphabetical_files_are_ordered_by_value() -> None:
    shapes = shapes_of(nn.ModuleDict({'blocks': nn.ModuleList([nn.Linear(2, 2) for _ in range(12)])}))
    assert is_definition_order(shapes)
    alphabetical = {name: shapes[name] for name in sorted(shapes)}
    assert not is_definition_order(alphabetical)
    assert paths(alphabetical) == paths(shapes) == [f'blocks.{index}' for index in range(12)]


def test_shuffled_names_are_no_definition_order() -> None:
    names = list(shapes_of(nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))))
    shuffled = [names[int(index)] for index in torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    assert is_definition_order(names)
    assert not is_definition_order(shuffled)


def test_execution_decides_the_order_but_lists_keep_their_numbers() -> None:
    shapes = {
        'head.weight': (2, 2),
        'blocks.1.b.weight': (2, 2),
        'blocks.1.a.weight': (2, 2),
        'blocks.0.a.weight': (2, 2),
        'stem.weight': (2, 2),
    }
    order = {
        '': 0,
        'stem': 1,
        'blocks.1': 2,
        'blocks.1.a': 3,
        'blocks.1.b': 4,
        'blocks.0': 5,
        'blocks.0.a': 6,
        'head': 7,
    }
    assert paths(shapes, order) == ['stem', 'blocks.0.a', 'blocks.1.a', 'blocks.1.b', 'head']


def test_what_never_ran_comes_last() -> None:
    shapes = {'unused.weight': (2, 2), 'b.weight': (2, 2), 'a.weight': (2, 2)}
    order = {'a': 1, 'b': 2}
    assert paths(shapes, order) == ['a', 'b', 'unused']


def test_parameters_of_a_module_come_with_it() -> None:
    """A token has no forward of its own; it stands where its module runs."""
    shapes = {'late.weight': (2, 2), 'body.token': (1, 2), 'body.fc.weight': (2, 2)}
    assert paths(shapes, {'': 0, 'body': 1, 'body.fc': 2, 'late': 3}) == ['body.token', 'body.fc', 'late']


def test_sorted_names_without_any_bias_are_no_order_of_definition() -> None:
    layers = ['embed', 'head', 'layers.0.down', 'layers.0.gate', 'layers.0.k', 'layers.0.q', 'layers.0.up']
    names = [f'{name}.weight' for name in layers]
    assert not is_definition_order(names)
    assert is_definition_order([*names[2:], *names[:2]])
    assert is_definition_order(names[2:6])
