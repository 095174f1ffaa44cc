from __future__ import annotations

import pytest
import torch

from kdplugin.weights.reading.tensor_source import MemorySource, RenamedSource, TensorSource


class Counting(MemorySource):
    """Counts how many tensors are read."""

    reads = 0

    def __getitem__(self, key: str) -> torch.Tensor:
        self.reads += 1
        return super().__getitem__(key)


def base() -> Counting:
    return Counting({'z.w': torch.zeros(2, 3), 'a.w': torch.ones(4, dtype=torch.float16)}, 'a file')


def sources() -> list[TensorSource]:
    return [base(), RenamedSource(base(), {'z.w': 'z.w', 'a.w': 'a.w'})]


@pytest.mark.parametrize('source', sources(), ids=lambda source: type(source).__name__)
def test_a_source_is_a_mapping_in_its_own_order(source: TensorSource) -> None:
    assert list(source) == ['z.w', 'a.w']
    assert len(source) == 2
    assert [tuple(value.shape) for value in source.values()] == [(2, 3), (4,)]
    assert source.get('b') is None
    with pytest.raises(KeyError):
        source['b']


def test_shapes_types_and_membership_read_nothing() -> None:
    inner = base()
    for source in (inner, RenamedSource(inner, {'new': 'z.w'})):
        key = next(iter(source))
        assert (source.shape(key), source.dtype(key)) == ((2, 3), torch.float32)
        assert key in source
        assert 'b' not in source
        assert list(source.keys()) == list(source)
    assert inner.reads == 0


def test_renaming_selects_and_orders() -> None:
    inner = base()
    source = RenamedSource(inner, {'one': 'a.w', 'two': 'z.w'})
    assert (source.name, list(source)) == ('a file', ['one', 'two'])
    assert torch.equal(source['one'], inner['a.w'])
    assert 'a.w' not in source
    with pytest.raises(KeyError):
        source['a.w']


def test_a_parameter_comes_without_its_graph() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert not MemorySource({'p': parameter})['p'].requires_grad


def test_two_sources_are_equal_only_if_they_are_one() -> None:
    """Comparing them as dicts would read both whole."""
    one, two = base(), base()
    assert one == one
    assert one != two
    assert (one.reads, two.reads) == (0, 0)
    assert len({one, two}) == 2


def test_representation_is_short() -> None:
    assert repr(base()) == "Counting('a file', 2 tensors)"
