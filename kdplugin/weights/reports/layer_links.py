"""Which layer of a student came from which layer of its source, summed up from the tensors of a report."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from kdplugin.weights.naming import natural_key, split_leaf
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.units import is_definition_order

ALIKE = 0.5
"""Two elements of a module list are blocks of one stack if they share this part of their tensors' names."""


@dataclass(frozen=True)
class Link:
    """What one layer of the target got from one layer of the source.

    Args:
        parameters: size of the target tensors that took part.
        energy: share of the source's squared norm that the tensors keep, 1 - error^2, weighted by parameters; None
            where no error was measured.
    """

    target: str
    source: str
    parameters: int
    energy: float | None


@dataclass(frozen=True)
class LayerLinks:
    """Layers of both sides in order, the links between them, and how much of each target layer is of which kind.

    Args:
        kinds: parameters by kind for each layer of the target.
    """

    targets: list[str]
    sources: list[str]
    links: list[Link]
    kinds: dict[str, dict[str, int]]


def layer_links(report: PlanReport) -> LayerLinks:
    """Sum up a report by layers: blocks of stacks, and single modules outside of them."""
    rows = report.rows
    used = dict.fromkeys(name for row in rows for name in row.sources)
    names = list(report.source_shapes) or [*used, *report.plan.unused]
    if not is_definition_order(names):
        names.sort(key=natural_key)
    of_target = layers_of(row.target for row in rows)
    of_source = layers_of(dict.fromkeys([*names, *used]))
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    shares: dict[tuple[str, str], list[tuple[int, float | None]]] = defaultdict(list)
    for row in rows:
        target = of_target[row.target]
        kinds[target][row.kind] += row.parameters
        energy = None if row.error is None else max(0.0, 1 - row.error**2)
        for source in dict.fromkeys(of_source[name] for name in row.sources):
            shares[target, source].append((row.parameters, energy))
    return LayerLinks(
        targets=list(dict.fromkeys(of_target.values())),
        sources=list(dict.fromkeys(of_source.values())),
        links=[_link(*pair, members) for pair, members in shares.items()],
        kinds={target: dict(by_kind) for target, by_kind in kinds.items()},
    )


def stack_lines(report: PlanReport) -> list[str]:
    """Say for each pair of stacks which block came from which.

    Example:
        'layers <- blocks: 0 from 0, 1 from 3, 2 from 5'
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for link in layer_links(report).links:
        (target, at), (source, number) = (name.rpartition('.')[::2] for name in (link.target, link.source))
        if at.isdigit() and number.isdigit():
            pairs[target, source].append((at, number))
    return [
        f'{target or "."} <- {source or "."}: {", ".join(f"{at} from {number}" for at, number in numbers)}'
        for (target, source), numbers in pairs.items()
        if any(at != number for at, number in numbers)
    ]


def _link(target: str, source: str, members: list[tuple[int, float | None]]) -> Link:
    measured = [(size, energy) for size, energy in members if energy is not None]
    weight = sum(size for size, _ in measured)
    energy = sum(size * energy for size, energy in measured) / weight if weight else None
    return Link(target, source, sum(size for size, _ in members), energy)


def layers_of(names: Iterable[str]) -> dict[str, str]:
    """Return the layer of each tensor: the block of the innermost stack it lies in, else its module.

    A stack is a module with numbered children of which two hold submodules with mostly the same names.

    Example:
        >>> layers_of(['stem.weight', *(f'blocks.{n}.{part}.weight' for n in (0, 1) for part in ('norm', 'fc'))])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'stem.weight': 'stem', 'blocks.0.norm.weight': 'blocks.0', 'blocks.0.fc.weight': 'blocks.0',
         'blocks.1.norm.weight': 'blocks.1', 'blocks.1.fc.weight': 'blocks.1'}
    """
    listed = list(names)
    children: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in listed:
        for found in re.finditer(r'(?:^|(?<=\.))\d+\.', name):
            children[name[: found.start()]][found[0]].add(name[found.end() :])
    stacks = {path for path, blocks in children.items() if _is_stack(list(blocks.values()))}
    layers = {}
    for name in listed:
        ends = [found.end() for found in re.finditer(r'(?:^|(?<=\.))\d+\.', name) if name[: found.start()] in stacks]
        layers[name] = name[: ends[-1] - 1] if ends else split_leaf(name)[0]
    return layers


def _is_stack(blocks: list[set[str]]) -> bool:
    return any(
        len(one & other) >= ALIKE * len(one | other) and any('.' in name for name in one & other)
        for one, other in combinations(blocks, 2)
    )
