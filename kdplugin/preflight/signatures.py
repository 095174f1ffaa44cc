"""Which keywords a type takes, parents included, found from signatures and the source of ``__init__`` alone."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Accepted:
    """The keywords of a callable.

    Args:
        names: those it takes.
        required: those without a default.
        open: it takes others too, of which nothing is known.
    """

    names: frozenset[str]
    required: frozenset[str]
    open: bool


@dataclass(frozen=True)
class Forwarding:
    """What an ``__init__`` does with its ``**kwargs``.

    Args:
        given: keywords that it hands to its parent itself, so that nobody else may.
        positional: how many arguments it hands to its parent by position.
        popped: keywords that it takes out of ``kwargs`` by name.
        past: the class after which the parent is looked for, as in ``super(FCOSHead, self)``; '' for its own.
        forwards: ``kwargs`` go to the parent.
        elsewhere: they go to somewhere that is not known.
    """

    given: frozenset[str] = frozenset()
    positional: int = 0
    popped: frozenset[str] = frozenset()
    past: str = ''
    forwards: bool = False
    elsewhere: bool = False


OPEN = Accepted(frozenset(), frozenset(), True)
READERS = ('pop', 'get', 'setdefault')


@cache
def accepted(kind: Callable[..., Any]) -> Accepted:
    """Return the keywords that a class or function takes.

    ``**kwargs`` are followed from ``__init__`` to ``super().__init__`` along the order of inheritance. Where they go
    elsewhere, or nowhere, the callable is ``open``.

    Example:
        >>> class Base:
        ...     def __init__(self, width): ...
        >>> class Child(Base):
        ...     def __init__(self, depth=1, **kwargs):
        ...         super().__init__(**kwargs)
        >>> accepted(Base)
        Accepted(names=frozenset({'width'}), required=frozenset({'width'}), open=False)
    """
    if not inspect.isclass(kind):
        return _of_function(kind)
    names: set[str] = set()
    required: set[str] = set()
    taken: set[str] = set()
    by_position = 0
    passed_over = ''
    for base in kind.__mro__:
        init = vars(base).get('__init__')
        if base is nn.Module or base is object:
            break
        if passed_over:
            passed_over = '' if base.__name__ == passed_over else passed_over
            continue
        if init is None:
            continue
        parameters = _parameters(init)
        if parameters is None:
            return OPEN
        own = [one for one in parameters[1:] if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        free = [one for number, one in enumerate(own) if number >= by_position and one.name not in taken]
        names |= {one.name for one in free} | _renamed(init)
        required |= {one.name for one in free if one.default is one.empty}
        rest = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)
        if rest is None:
            break
        use = _forwarding(init, rest, base)
        names |= use.popped
        if use.elsewhere or not use.forwards:
            return Accepted(frozenset(names), frozenset(required), True)
        taken |= use.given - names
        by_position, passed_over = use.positional, use.past
    return Accepted(frozenset(names), frozenset(required), False)


def _of_function(function: Callable[..., Any]) -> Accepted:
    parameters = _parameters(function)
    if parameters is None:
        return OPEN
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return Accepted(
        frozenset(one.name for one in named),
        frozenset(one.name for one in named if one.default is one.empty),
        any(one.kind is one.VAR_KEYWORD for one in parameters),
    )


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C, without a signature
        return None


def _renamed(function: Callable[..., Any]) -> set[str]:
    """Return the old names of arguments that mmengine's ``deprecated_api_warning`` still takes."""
    names: set[str] = set()
    while hasattr(function, '__wrapped__'):
        for cell in getattr(function, '__closure__', None) or ():
            content = cell.cell_contents
            if isinstance(content, dict):
                names |= {key for key, value in content.items() if isinstance(key, str) and isinstance(value, str)}
        function = function.__wrapped__
    return names


def _forwarding(init: Callable[..., Any], rest: str, owner: type) -> Forwarding:
    """Read from its source what an ``__init__`` does with ``**rest``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(init))))
    except (OSError, TypeError, SyntaxError):
        return Forwarding(elsewhere=True)
    found = Forwarding()
    understood: set[int] = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if _calls_parent(call):
            starred = [one.value for one in call.keywords if one.arg is None and _is_name(one.value, rest)]
            if starred:
                understood |= {id(one) for one in starred}
                found = Forwarding(
                    frozenset(one.arg for one in call.keywords if one.arg),
                    _positional(call),
                    found.popped,
                    _past(call, owner),
                    True,
                    found.elsewhere,
                )
    popped = set()
    for node, name, key in _reads(tree, rest):
        understood.add(id(name))
        if key is None:
            return Forwarding(elsewhere=True)
        popped.add(key)
        del node
    others = [node for node in ast.walk(tree) if _is_name(node, rest) and id(node) not in understood]
    return replace(found, popped=frozenset(popped), elsewhere=bool(others))


def _positional(call: ast.Call) -> int:
    """Return how many positional parameters of the parent a call fills; ``self`` of ``Base.__init__(self)`` is none."""
    by_name = not (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call))
    plain = [one for one in call.args if not isinstance(one, ast.Starred)]
    return len(plain) - int(by_name)


def _past(call: ast.Call, owner: type) -> str:
    """Return the class that ``super(Class, self)`` begins behind, '' if that is the owner's own."""
    target = call.func.value if isinstance(call.func, ast.Attribute) else None
    named = target.args[0] if isinstance(target, ast.Call) and target.args else None
    return named.id if isinstance(named, ast.Name) and named.id != owner.__name__ else ''


def _calls_parent(call: ast.Call) -> bool:
    """Tell ``super().__init__(...)`` and ``Base.__init__(self, ...)`` from other calls."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != '__init__':
        return False
    target = function.value
    if isinstance(target, ast.Call):
        return isinstance(target.func, ast.Name) and target.func.id == 'super'
    return bool(call.args) and _is_name(call.args[0], 'self')


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _reads(tree: ast.AST, rest: str) -> Iterator[tuple[ast.AST, ast.AST, str | None]]:
    """Yield what takes single keywords: ``rest.pop('x')``, ``rest['x']``, ``'x' in rest``; None where it is no text."""

    def text(node: ast.AST | None) -> str | None:
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
            if _is_name(node.func.value, rest) and node.args:
                yield node, node.func.value, text(node.args[0])
        elif isinstance(node, ast.Subscript) and _is_name(node.value, rest):
            yield node, node.value, text(node.slice)
        elif isinstance(node, ast.Compare) and len(node.comparators) == 1 and _is_name(node.comparators[0], rest):
            yield node, node.comparators[0], text(node.left)


@cache
def keys_read(constructor: Any, name: str) -> frozenset[str]:
    """Return the keys that a class and its parents take from a dict, by the name it has in their source."""
    return frozenset(key for base in constructor.__mro__[:-1] for key in _keys_read(base, name))


def _keys_read(base: type, name: str) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        owner: ast.AST | None = None
        key: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner, key = node.func.value, node.args[0]
        elif isinstance(node, ast.Subscript):
            owner, key = node.value, node.slice
        elif isinstance(node, ast.Compare):
            owner, key = node.comparators[0], node.left
        if owner is None or not ast.unparse(owner).endswith(name):
            continue
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
