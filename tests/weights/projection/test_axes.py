"""Axes go into the groups whose widths they have, once, with the sides that their tensors need."""

from __future__ import annotations

from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.layer_slots import Layer, Slot

STREAM = (8, 4)


def slot(entry: int, old: tuple[int, ...], new: tuple[int, ...], source: str | None = 'w') -> Slot:
    return Slot(entry, 0, f'target{entry}', source, old, new)


def started(*layers: Layer) -> Axes:
    axes = Axes(layers)
    axes.group('stream', 'residual', STREAM)
    return axes


def test_axes_of_other_widths_are_left_out() -> None:
    axes = started()
    for one in (slot(0, (8, 3), (8, 3)), slot(1, (8, 3), (5, 3)), slot(2, (6, 3), (4, 3))):
        axes.put(one, 0, 'stream', 'out')
    axes.put(slot(3, (8, 3), (4, 3)), 0, 'stream', 'out')
    assert set(axes.places) == {(3, 0, 0)}
    assert axes.drafts['stream'].members == [('w', 0, 'out')]


def test_the_first_place_stays() -> None:
    axes = started()
    axes.group('other', 'hidden', STREAM)
    one = slot(0, (8,), (4,))
    axes.put(one, 0, 'stream', 'out')
    axes.put(one, 0, 'other', 'out')
    assert axes.places[0, 0, 0].group == 'stream'


def test_norms_multiply_and_add_but_only_gains_are_members() -> None:
    tensors = {role: slot(i, (8,), (4,), role) for i, role in enumerate(('weight', 'bias', 'mean', 'var'))}
    axes = started()
    axes.put_vector(Layer('bn', tensors), 'stream')
    assert [axes.places[i, 0, 0].side for i in range(4)] == ['gain', 'out', 'out', 'gain']
    assert axes.drafts['stream'].members == [('weight', 0, 'gain'), ('var', 0, 'gain')]


def test_writers_readers_tables_and_views() -> None:
    fc = Layer('fc', {'weight': slot(0, (8, 8), (4, 4), 'fc'), 'bias': slot(1, (8,), (4,), 'b')})
    table = Layer('pos', {'weight': slot(2, (1, 7, 8), (1, 7, 4), 'pos')})
    merged = Layer('merge', {'weight': slot(3, (5, 32), (5, 16), 'merge')})
    axes = started(fc, table, merged)
    axes.put_writer(fc, 'stream')
    axes.put_reader(fc, 'stream')
    axes.put_table(table, 'stream')
    axes.put_view(merged.weight, 1, 'stream', 'in', (4, 8), 1)
    assert axes.drafts['stream'].members == [
        ('fc', 0, 'out'), ('b', 0, 'out'), ('fc', 1, 'in'), ('pos', 2, 'out'), ('merge', 2, 'in')]  # fmt: skip
    assert axes.places[3, 0, 1].inner == (4, 8)
    assert not any(axes.open_axes(layer) for layer in axes.layers)


def test_axes_of_heads_have_widths_of_their_own() -> None:
    axes = started()
    axes.group('heads', 'heads', (8, 4), unit=4, target_unit=2)
    axes.put(slot(0, (9, 2), (9, 2)), 1, 'heads', 'head')
    axes.put(slot(1, (4,), (2,)), 0, 'heads', 'dim')
    axes.put(slot(2, (8,), (4,)), 0, 'heads', 'q')
    assert set(axes.places) == {(1, 0, 0), (2, 0, 0)}


def test_zeros_are_projected_but_say_nothing() -> None:
    axes = started()
    axes.put(slot(0, (8,), (4,), None), 0, 'stream', 'out')
    assert axes.places[0, 0, 0].side == 'out'
    group = axes.drafts['stream'].group('svd')
    assert (group.members, group.method, group.target_unit) == ((), 'svd', 0)
