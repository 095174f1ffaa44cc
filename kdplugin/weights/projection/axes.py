"""Which axis group each changing axis belongs to: collected while the layers of a plan are looked through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kdplugin.weights.plan import AxisGroup
from kdplugin.weights.plan_shapes import side_widths
from kdplugin.weights.projection.layer_slots import Layer, Slot

Widths = tuple[int, int]

SHARED = ('kind', 'source_width', 'target_width', 'unit', 'centred', 'rotary', 'queries')
VECTOR_SIDES = {'weight': 'gain', 'var': 'gain', 'bias': 'out', 'mean': 'out'}
"""Side of each tensor of a norm: gains and variances multiply, the others add."""


@dataclass
class Draft:
    """An axis group in the making; its fields are those of ``AxisGroup``."""

    kind: str
    source_width: int
    target_width: int
    unit: int = 1
    target_unit: int = 0
    centred: bool = False
    rotary: str = 'both'
    truncate: bool = False
    queries: Widths = (1, 1)
    members: list[tuple[str, int, str]] = field(default_factory=list)

    def group(self, method: str) -> AxisGroup:
        """Return the group with a method."""
        fields = {name: getattr(self, name) for name in SHARED}
        unit = self.target_unit if self.target_unit != self.unit else 0
        return AxisGroup(method=method, members=tuple(dict.fromkeys(self.members)), target_unit=unit, **fields)


@dataclass(frozen=True)
class Place:
    """Where an axis of a slot belongs.

    Args:
        inner: where the axis holds several units of the group's width: the axes that it is viewed as,
        at: and which of them is the group's.
    """

    group: str
    side: str
    inner: tuple[int, ...] = ()
    at: int = 0


class Axes:
    """The axis groups of a plan and the place of each changing axis in them.

    Args:
        layers: the layers that the plan loads, in the target's order.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)
        self.drafts: dict[str, Draft] = {}
        self.places: dict[tuple[int, int, int], Place] = {}
        self.notes: list[str] = []

    def group(self, name: str, kind: str, widths: Widths, **fields: object) -> str:
        """Return the name of a group, which is begun if it is new."""
        self.drafts.setdefault(name, Draft(kind, *widths, **fields))  # type: ignore[arg-type]
        return name

    def named(self, kind: str, widths: Widths) -> str:
        """Return the name of the group that all axes of a kind and of these widths share.

        'channels.96', or 'channels.96.32' beside channels that go from 96 to another width.
        """
        plain = f'{kind}.{widths[0]}'
        draft = self.drafts.get(plain)
        return plain if draft is None or (draft.source_width, draft.target_width) == widths else f'{plain}.{widths[1]}'

    def known(self, kind: str, widths: Widths) -> str | None:
        """Return the name of that group, or None where there is none yet."""
        name = self.named(kind, widths)
        return name if name in self.drafts else None

    def put(self, slot: Slot, dim: int, group: str, side: str, *, member: bool = True) -> None:
        """Put an axis into a group, if it changes and is the group's; what was put first stays.

        Args:
            member: whether a basis of method 'svd' is measured on it.
        """
        draft, key = self.drafts[group], (slot.entry, slot.piece, dim)
        widths = slot.change(dim)
        if widths[0] == widths[1] or key in self.places or widths != side_widths(draft.group('truncate'), side):
            return
        self.places[key] = Place(group, side)
        if slot.source is not None and member:
            draft.members.append((slot.source, dim, side))

    def put_view(self, slot: Slot, dim: int, group: str, side: str, inner: tuple[int, int], at: int) -> None:
        """Put an axis into a group that is viewed as two axes ``inner``, of which ``at`` is the group's."""
        key = (slot.entry, slot.piece, dim)
        if dim in slot.changing and key not in self.places:
            self.places[key] = Place(group, side, inner, at)
            if slot.source is not None and len(slot.old) <= 2:
                self.drafts[group].members.append((slot.source, dim + at, side))

    def put_vector(self, layer: Layer, group: str) -> None:
        """Put all tensors of a norm or a scale into a group; what a norm adds says nothing about the axis."""
        for role, slot in layer.tensors.items():
            for dim in slot.changing:
                side = VECTOR_SIDES.get(role, 'out')
                self.put(slot, dim, group, side, member=side == 'gain')

    def put_writer(self, layer: Layer, group: str, side: str = 'out') -> None:
        """Put what a matrix writes, and its bias, into a group."""
        for role, slot in layer.tensors.items():
            if role in ('weight', 'bias'):
                self.put(slot, 0, group, side)

    def put_reader(self, layer: Layer, group: str) -> None:
        """Put what a matrix reads into a group."""
        self.put(layer.weight, 1, group, 'in')

    def put_table(self, layer: Layer, group: str) -> None:
        """Put the vectors of a table into a group."""
        self.put(layer.weight, len(layer.weight.old) - 1, group, 'out')

    def open_axes(self, layer: Layer) -> list[tuple[Slot, int]]:
        """Return the changing axes of a layer that have no place yet."""
        slots = layer.tensors.values()
        return [(s, dim) for s in slots for dim in s.changing if (s.entry, s.piece, dim) not in self.places]
