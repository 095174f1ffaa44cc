"""Write a config as a person would: what it inherits, and what differs."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 100


def plain(value: Any, scope: str | None = None) -> Any:
    """Turn config dicts and lists into plain ones; tuples stay tuples.

    Args:
        value: of a config.
        scope: ``_scope_`` entries that name it are left out: mmengine adds them to whatever another package brings.
    """
    if isinstance(value, Mapping):
        items = {key: plain(item, scope) for key, item in value.items()}
        return {key: item for key, item in items.items() if key != '_scope_' or item != scope}
    return type(value)(plain(item, scope) for item in value) if isinstance(value, list | tuple) else value


def difference(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config that inherits ``base`` has to say to become ``wanted``, in mmengine's words; both are plain.

    Example:
        >>> difference(dict(a=1, b=dict(x=1, y=2)), dict(a=1, b=dict(x=1, y=3)))
        {'b': {'y': 3}}
        >>> difference(dict(b=dict(x=1, y=2)), dict(b=dict(y=2)))
        {'b': {'_delete_': True, 'y': 2}}
    """
    changes: dict[str, Any] = {}
    for key, value in wanted.items():
        old: Any = base.get(key)
        if key in base and old == value:
            continue
        if isinstance(value, Mapping) and key in base:
            inherits = isinstance(old, Mapping) and not old.keys() - value.keys()
            changes[key] = difference(old, value) if inherits else dict(_delete_=True, **value)
        else:
            changes[key] = value
    return changes


def statements(name: str, base: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield assignments that turn a config dict called ``name`` from ``base`` into ``wanted``.

    Example:
        >>> list(statements('student', dict(neck=dict(type='FPN')), dict(neck=dict(type='FPN', num_outs=4))))
        ['student.neck.num_outs = 4']
    """
    for key, value in wanted.items():
        old = base.get(key)
        if key in base and old == value:
            continue
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not old.keys() - value.keys():
            yield from statements(f'{name}.{key}', old, value)
        else:
            yield assignment(f'{name}.{key}', value)


def source_text(value: Any, indent: int = 0, used: int = 0) -> str:
    """Return Python source of a config value, dicts as ``dict(...)``, broken into lines where it is long.

    Args:
        value: made of dicts, lists, tuples, strings, numbers, booleans and None.
        indent: of the line it stands on.
        used: characters of that line before it.

    Example:
        >>> source_text(dict(type='SGD', lr=0.01))
        "dict(type='SGD', lr=0.01)"
    """
    if isinstance(value, Source):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value):
            return _bracketed('{', '}', [(f'{key!r}: ', item) for key, item in value.items()], indent, used)
        return _bracketed('dict(', ')', [(f'{key}=', item) for key, item in value.items()], indent, used)
    if isinstance(value, list | tuple):
        opening, closing = ('[', ']') if isinstance(value, list) else ('(', ',)' if len(value) == 1 else ')')
        return _bracketed(opening, closing, [('', item) for item in value], indent, used)
    return repr(value)


class Source(str):
    """A value that is already source, such as ``_base_.model``."""


def _bracketed(opening: str, closing: str, items: list[tuple[str, Any]], indent: int, used: int) -> str:
    line = f'{opening}{", ".join(name + source_text(item) for name, item in items)}{closing}'
    if indent + used + len(line) <= WIDTH and '\n' not in line:
        return line
    space = ' ' * (indent + 4)
    lines = [f'{space}{name}{source_text(item, indent + 4, len(name) + 1)},' for name, item in items]
    return '\n'.join([opening, *lines, ' ' * indent + closing.lstrip(',')])


def assignment(name: str, value: Any) -> str:
    """Return ``name = <source>`` of a config value."""
    return f'{name} = {source_text(value, 0, len(name) + 3)}'
