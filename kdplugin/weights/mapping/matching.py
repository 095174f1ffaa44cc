"""Which unit of a target corresponds to which unit of a source.

Passes from sure to less sure, after the idea of GumTree (Falleri et al., ASE 2014) for syntax trees: modules that hold
the same multiset of shapes are paired, largest first, and everything inside them; then units whose surroundings are
paired; then what is left. Lists of alike modules are aligned in order. Ties between alike layers are decided by an
optimal assignment over names and order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

import numpy as np

from kdplugin.weights.mapping.assignment import (
    ADJACENT,
    AMBIGUOUS,
    NEARBY,
    ORDER,
    Choice,
    Match,
    Matrix,
    evidence,
    exchange_margins,
    fit,
    list_likeness,
    order_likeness,
    solve,
)
from kdplugin.weights.mapping.nearness import nearness, unique_on_both
from kdplugin.weights.mapping.tree import Node, build_tree, families, head_of, lists_alone
from kdplugin.weights.naming import name_similarity
from kdplugin.weights.units import Unit

UNIQUE, LAST = 0.9, 0.6
"""How surely two units correspond whose shape is unique on both sides, or unique among what is left."""

ChooseLayers = Callable[[Sequence[Node], Sequence[Node]], Sequence[int]]
"""From the elements of a source list and of a shorter or longer target list to a source index per target element."""


class Matcher:
    """Pair the units of two models; see the module's text.

    Args:
        source, target: units.
        ordered: whether the order of each side means anything.
        choose_layers: decides where lists of alike modules differ in length.
        key: what units must share; ``Unit.key`` by default.
    """

    def __init__(
        self,
        source: Sequence[Unit],
        target: Sequence[Unit],
        *,
        ordered: bool = True,
        choose_layers: ChooseLayers,
        key: Callable[[Unit], Hashable] = lambda unit: unit.key,
    ) -> None:
        self.units = (source, target)
        self.keys = tuple([key(unit) for unit in side] for side in self.units)
        self.trees = tuple(build_tree(side, keys) for side, keys in zip(self.units, self.keys, strict=True))
        self.ordered = ordered
        self.choose_layers = choose_layers
        self._unique = unique_on_both(self.units, self.keys)
        self.matches: dict[int, Match] = {}
        self.taken: set[int] = set()
        self.notes: list[str] = []

    def run(self, anchors: Sequence[Match] = ()) -> dict[int, Match]:
        """Return matches by target index; ``anchors`` are certain beforehand."""
        for match in anchors:
            self._add(match)
        self._pair_trees(self.trees[0], self.trees[1], nearby=0.5, inside=False)
        for _ in range(3):
            if not self._pair_leftovers():
                break
        return self.matches

    def _add(self, match: Match) -> None:
        self.matches[match.target] = match
        self.taken.add(match.source)

    def _free(self, node: Node, side: int) -> bool:
        used = self.taken if side == 0 else self.matches
        return not any(index in used for index in node.units)

    def _pair_trees(self, first: Node, second: Node, nearby: float, inside: bool) -> None:
        """Pair modules below two nodes that hold the same shapes, largest first."""
        groups: dict[Hashable, tuple[list[Node], list[Node]]] = defaultdict(lambda: ([], []))
        for side, top in enumerate((first, second)):
            for node in top.walk():
                if not (inside and node is top) and (len(node.units) > 1 or inside):
                    groups[node.content][side].append(node)
        both = [group for group in groups.values() if all(group)]
        both.sort(key=lambda group: (-len(group[0][0].units), not lists_alone(*group)))
        for only_unique in (True, False):
            for left, right in both:
                if len(left) == len(right) == 1 or not only_unique:
                    self._pair_alike(left, right, nearby, inside)

    def _pair_alike(self, left: list[Node], right: list[Node], nearby: float, inside: bool) -> None:
        anchored = self._anchored(left, right)
        free = [node for node in left if self._free(node, 0)], [node for node in right if self._free(node, 1)]
        for a, b in anchored:
            self._pair_inside(a, b, 1.0, 'inside a module found by values')
        if not free[0] or not free[1] or anchored:
            return
        if len(free[0][0].units) == 1:
            self._pair_units([n.units[0] for n in free[0]], [n.units[0] for n in free[1]], nearby, 'inside its module')
            return
        for a, b, margin in self._assign_nodes(*free):
            self._pair_inside(a, b, nearby if inside else 1.0, 'same shapes')
            for index in b.units:
                if index in self.matches:
                    self.matches[index].margin = min(margin, self.matches[index].margin)

    def _anchored(self, left: list[Node], right: list[Node]) -> list[tuple[Node, Node]]:
        """Pair modules by what is already matched inside them."""
        home = {index: number for number, node in enumerate(left) for index in node.units}
        pairs = []
        for node in right:
            found = [
                home[self.matches[i].source] for i in node.units if i in self.matches and self.matches[i].source in home
            ]
            if found and len(found) < len(node.units) and len(set(found)) == 1:
                pairs.append((left[found[0]], node))
        return pairs

    def _pair_inside(self, a: Node, b: Node, nearby: float, why: str) -> None:
        if len(a.units) == 1:
            self._pair_units(a.units, b.units, nearby, why)
        elif a.path.rpartition('.')[2] == b.path.rpartition('.')[2] and self._same_inside(a, b):
            for i, j in self._by_name(a, b):
                self._add(Match(i, j, nearby, 1.0, 1.0, why='same names inside'))
        else:
            self._pair_trees(a, b, nearby, inside=True)

    def _by_name(self, a: Node, b: Node) -> list[tuple[int, int]]:
        names = {self.units[0][i].path[len(a.path) :]: i for i in a.units if i not in self.taken}
        inside = [(self.units[1][j].path[len(b.path) :], j) for j in b.units if j not in self.matches]
        return [(names[path], j) for path, j in inside if path in names]

    def _same_inside(self, a: Node, b: Node) -> bool:
        pairs = self._by_name(a, b)
        left = [i for i in a.units if i not in self.taken]
        return len(pairs) == len(left) and all(self.keys[0][i] == self.keys[1][j] for i, j in pairs)

    def _assign_nodes(self, left: list[Node], right: list[Node]) -> list[tuple[Node, Node, float]]:
        """Pair modules of the same content: lists in order, others by names and order."""
        groups = [families(side) for side in (left, right)]
        if len(groups[0]) == len(groups[1]) == 1:
            return self._align_list(groups[0][0], groups[1][0])
        lengths = [sorted(map(len, side)) for side in groups]
        if len(left) == len(right) and (lengths[0] != lengths[1] or lengths[0][-1] == 1):
            return self._assign_by_evidence(left, right)
        heads = [[head_of(family) for family in side] for side in groups]
        pairs, _ = self._choose(heads[0], heads[1], NEARBY * self._around(heads[0], heads[1]))
        return [
            (a, b, min(margin, pair.margin))
            for pair in pairs
            if pair.margin >= AMBIGUOUS or len(left) == len(right)
            for a, b, margin in self._align_list(groups[0][pair.row], groups[1][pair.column])
        ]

    def _assign_by_evidence(self, left: list[Node], right: list[Node]) -> list[tuple[Node, Node, float]]:
        places = [[(node.place or node.path).rpartition('.')[0] for node in side] for side in (left, right)]
        beside = self._adjacency([node.units for node in left], [node.units for node in right], places)
        alike = fit(*[[self._chief(node, side) for node in nodes] for side, nodes in enumerate((left, right))])
        paths = [node.path for node in left], [node.path for node in right]
        pairs, _ = self._choose(*paths, beside + alike + NEARBY * self._around(*paths))
        return [(left[pair.row], right[pair.column], pair.margin) for pair in pairs]

    def _around(self, left: Sequence[str], right: Sequence[str]) -> Matrix:
        """Score paths by the layers of unique shape in the modules that hold them, before anything is matched."""
        paths = [[*side, *extra] for side, extra in zip(self._unique, (left, right), strict=True)]
        count = len(self._unique[0])
        ends = [range(count, len(side)) for side in paths]
        return nearness(paths, [(index, index) for index in range(count)], ends[0], ends[1])

    def _chief(self, node: Node, side: int) -> Unit:
        """Return the unit of a module whose weight has the most axes and values."""
        units = [self.units[side][index] for index in node.units]
        return max(units, key=lambda unit: (len(unit.main.core), unit.size))

    def _choose(
        self, left: Sequence[str], right: Sequence[str], more: Matrix | float = 0.0
    ) -> tuple[list[Choice], list[bool]]:
        """Return the best assignment of paths, and for each pair whether order alone decided.

        Where the order of names means nothing, it still does within lists of the same length.
        """
        scores = evidence(left, right) + more
        ranks = order_likeness(*scores.shape) if self.ordered else list_likeness(left, right)
        pairs = solve(scores + ORDER * ranks)
        if not self.ordered:
            return pairs, [False] * len(pairs)
        rows, columns = (np.array([getattr(pair, name) for pair in pairs], dtype=np.intp) for name in ('row', 'column'))
        without, _ = exchange_margins(scores, rows, columns)
        return pairs, [bool(margin < AMBIGUOUS) for margin in without]

    def _align_list(self, left: list[Node], right: list[Node]) -> list[tuple[Node, Node, float]]:
        if len(left) == len(right):
            return [(a, b, 1.0) for a, b in zip(left, right, strict=True)]
        chosen = self.choose_layers(left, right)
        name = right[0].path.rpartition('.')[0] or right[0].path
        self.notes.append(
            f'{name}: {len(right)} modules for {len(left)} alike ones of the source, taken from {list(chosen)}'
        )
        pairs = zip(chosen, right, strict=False)
        used: set[int] = set()
        return [(left[i], b, 1.0) for i, b in pairs if not (i in used or used.add(i))]  # type: ignore[func-returns-value]

    def _pair_units(self, left: Sequence[int], right: Sequence[int], nearby: float | Matrix, why: str) -> int:
        """Assign alike units to each other; returns how many pairs were added."""
        one, two = ([self.units[side][i] for i in indices] for side, indices in enumerate((left, right)))
        paths = [[unit.path for unit in side] for side in (one, two)]
        names = name_similarity(paths[0], paths[1])
        places = [[path.rpartition('.')[0] for path in side] for side in paths]
        grouped = len(one[0].main.core) == 1 and any(_consecutive(side) for side in (left, right))
        beside = 0.0 if grouped else self._adjacency([[i] for i in left], [[j] for j in right], places)
        near = np.broadcast_to(np.asarray(nearby, dtype=np.float32), names.shape)
        pairs, by_order = self._choose(paths[0], paths[1], NEARBY * near + fit(one, two) + beside)
        for pair, alone in zip(pairs, by_order, strict=True):
            at = pair.row, pair.column
            rivals = () if pair.rival is None or pair.margin >= AMBIGUOUS else (left[pair.rival],)
            reason = f'{why}, told from others by order alone' if alone else why
            self._add(Match(left[at[0]], right[at[1]], float(near[at]), float(names[at]), pair.margin, rivals, reason))
        return len(pairs)

    def _adjacency(
        self, left: Sequence[Sequence[int]], right: Sequence[Sequence[int]], places: Sequence[Sequence[str]]
    ) -> Matrix:
        """Score groups of units whose neighbours in the same module are already matched to each other.

        Where the order of names means nothing, elements of a list alone are neighbours.

        Args:
            places: paths of the modules that hold the groups, source first.
        """
        scores = np.zeros((len(left), len(right)), dtype=np.float32)
        for end, step in ((max, 1), (min, -1)):
            beside = np.array(
                [
                    i if self._holds(0, path, i := end(units) + step) else -1
                    for units, path in zip(left, places[0], strict=True)
                ]
            )
            matched = [
                self.matches.get(j) if self._holds(1, path, j := end(units) + step) else None
                for units, path in zip(right, places[1], strict=True)
            ]
            partner = np.array([-9 if match is None else match.source for match in matched])
            scores += ADJACENT * (beside[:, None] == partner[None, :])
        return scores

    def _holds(self, side: int, module: str, index: int) -> bool:
        inside = 0 <= index < len(self.units[side]) and bool(module)
        path = self.units[side][index].path if inside else ''
        return path.startswith(f'{module}.') and (self.ordered or path[len(module) + 1 :].partition('.')[0].isdigit())

    def _pair_leftovers(self) -> int:
        """Pair units that are left, where their surroundings or names agree; returns how many were added."""
        left = [i for i in range(len(self.units[0])) if i not in self.taken]
        right = [j for j in range(len(self.units[1])) if j not in self.matches]
        if not left or not right:
            return 0
        paths = [[unit.path for unit in side] for side in self.units]
        pairs = [(match.source, match.target) for match in self.matches.values()]
        near = nearness(paths, pairs, left, right)
        groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for side, (keys, rest) in enumerate(zip(self.keys, (left, right), strict=True)):
            for position, index in enumerate(rest):
                groups[keys[index]][side].append(position)
        added = 0
        for rows, columns in groups.values():
            if rows and columns:
                block = near[np.ix_(rows, columns)]
                if len(rows) == len(columns) == 1:
                    block = np.maximum(block, self._alone(left[rows[0]], right[columns[0]]))
                added += self._pair_units([left[i] for i in rows], [right[j] for j in columns], block, 'left over')
        return added

    def _alone(self, i: int, j: int) -> float:
        """Score the only two units of their shape that are left: no others could take their place."""
        if self.keys[0].count(self.keys[0][i]) == 1 == self.keys[1].count(self.keys[1][j]):
            return UNIQUE
        a, b = self.units[0][i], self.units[1][j]
        return LAST * (a.main.core == b.main.core and len(a.main.core) > 1 and set(a.atoms) == set(b.atoms))


def _consecutive(indices: Sequence[int]) -> bool:
    """Tell whether any two are neighbours: norms that a module defines one after the other, not where they act."""
    return any(second - first == 1 for first, second in pairwise(sorted(indices)))
