"""How near two layers are: by the share of matched layers in the modules around them."""

from __future__ import annotations

import pytest

from kdplugin.weights.mapping.nearness import ROOT, nearness, unique_on_both
from kdplugin.weights.units import Atom, Unit

PATHS = (['a.x', 'a.y', 'a.z', 'b.x', 'b.z'], ['p.x', 'p.y', 'p.z', 'q.x', 'q.z'])


def test_layers_in_matched_modules_are_near() -> None:
    near = nearness(PATHS, [(0, 0), (1, 1), (3, 3)], [2, 4], [2, 4])
    whole = 2 * 3 / 10 * ROOT
    assert near[0, 0] == pytest.approx(2 * 2 / 6)
    assert near[1, 1] == pytest.approx(2 * 1 / 4)
    assert near[0, 1] == near[1, 0] == pytest.approx(whole)


def test_without_matches_nothing_is_near() -> None:
    assert not nearness(PATHS, [], [0, 1], [0, 1]).any()


def test_a_fully_matched_pair_of_modules_is_one() -> None:
    near = nearness((['a', 'm.x'], ['b', 'n.x']), [(1, 1)], [1], [1])
    assert near.item() == 1


def test_the_innermost_matched_modules_decide() -> None:
    """Of two candidates under the same parent the one in the matched child is nearer."""
    paths = (['m.c.x', 'm.c.y'], ['n.d.x', 'n.d.y', 'n.e.y'])
    near = nearness(paths, [(0, 0)], [1], [1, 2])
    assert near[0].tolist() == pytest.approx([2 / 4, 2 / 5])


def test_both_sides_exchanged_give_the_transpose() -> None:
    matched = [(0, 1), (1, 0), (3, 4)]
    one = nearness(PATHS, matched, [2, 4], [2, 3])
    two = nearness(PATHS[::-1], [(j, i) for i, j in matched], [2, 3], [2, 4])
    assert one == pytest.approx(two.T)


def test_unique_layers_are_those_of_keys_that_both_sides_have_once() -> None:
    units = [[Unit(path, {'weight': Atom(f'{path}.weight', (1,))}) for path in side] for side in ('abcd', 'xyzw')]
    assert unique_on_both(units, [[1, 2, 2, 3], [3, 2, 1, 4]]) == (['a', 'd'], ['z', 'x'])
