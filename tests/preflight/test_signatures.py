from __future__ import annotations

from typing import Any

import pytest
from mmengine.utils import deprecated_api_warning
from torch import nn
from torch.optim import SGD

from kdplugin.preflight.signatures import Accepted, accepted


class Base:
    def __init__(self, width: int, depth: int = 1) -> None:
        self.width = width


class Passing(Base):
    def __init__(self, size: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Setting(Base):
    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(width=2 * size, **kwargs)


class ByPosition(Base):
    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(2 * size, **kwargs)


class ByName(Base):
    def __init__(self, size: int, **kwargs: Any) -> None:
        Base.__init__(self, 2 * size, **kwargs)


class Popping(Base):
    def __init__(self, **kwargs: Any) -> None:
        self.name = kwargs.pop('name', None)
        if 'other' in kwargs:
            self.other = kwargs['other']
        super().__init__(**kwargs)


class Elsewhere(Base):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1)
        self.settings = kwargs


class Silent(Passing):
    pass


class Module(nn.Module):
    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Renamed:
    @deprecated_api_warning({'old': 'new'})
    def __init__(self, new: int = 1) -> None:
        self.new = new


@pytest.mark.parametrize(
    ('kind', 'names', 'required', 'open_'),
    [
        (Base, {'width', 'depth'}, {'width'}, False),
        (Passing, {'size', 'width', 'depth'}, {'width'}, False),
        (Silent, {'size', 'width', 'depth'}, {'width'}, False),
        (Setting, {'size', 'depth'}, {'size'}, False),
        (ByPosition, {'size', 'depth'}, {'size'}, False),
        (ByName, {'size', 'depth'}, {'size'}, False),
        (Popping, {'name', 'other', 'width', 'depth'}, {'width'}, False),
        (Elsewhere, set(), set(), True),
        (Module, {'channels'}, {'channels'}, False),
        (Renamed, {'new', 'old'}, set(), False),
    ],
)
def test_keywords_are_followed_to_the_parents(kind: type, names: set[str], required: set[str], open_: bool) -> None:
    assert accepted(kind) == Accepted(frozenset(names), frozenset(required), open_)


def test_what_is_found_is_what_python_takes() -> None:
    """The law behind it: a keyword that is called unknown is refused by the class itself, a known one is not."""
    for kind, good in ((Passing, dict(width=1, size=2)), (Setting, dict(size=1, depth=2)), (ByPosition, dict(size=1))):
        kind(**good)
        assert set(good) <= accepted(kind).names
        for wrong in ('width', 'nothing'):
            if wrong not in accepted(kind).names:
                with pytest.raises(TypeError):
                    kind(**good, **{wrong: 1})


def test_functions_and_types_without_a_signature() -> None:
    def function(a: int, *, b: int = 1) -> None: ...

    def free(a: int, **rest: Any) -> None: ...

    assert accepted(function) == Accepted(frozenset('ab'), frozenset('a'), False)
    assert accepted(free).open
    assert accepted(dict).open
    assert {'lr', 'momentum', 'weight_decay'} <= accepted(SGD).names
    assert not accepted(nn.BatchNorm2d).open
    assert 'momentum' in accepted(nn.BatchNorm2d).names


def test_a_parent_further_up_is_found() -> None:
    """VFNetHead begins behind FCOSHead: what that takes itself is not asked for, what lies above it is."""
    from mmdet.models import VFNetHead

    takes = accepted(VFNetHead)
    assert {'strides', 'dcn_on_last_conv', 'num_classes', 'regress_ranges'} <= takes.names
    assert not takes.open
