"""Damage to configs, for a test that nothing but messages comes of it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1.5, float('nan'), float('inf'), '', 'x', '../..', '\0', '{', 'é' * 40, [], {}, (),
    [None],
    [[[]]], {'type': None}, {'type': 5}, {'type': 'Nothing'}, {'type': 'mmdet.Nothing'}, {'type': ['ResNet']},
    {'type': 'ResNet', 'depth': 'x'}, {'_delete_': True}, {'type': 'os.system', 'command': 'touch executed'},
    {'type': 'subprocess.Popen', 'args': ['touch', 'executed']}, {'type': 'pathlib.Path.touch'}, object, len, b'bytes',
    {1: 2}, {None: None}, 'os.system',
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def damaged(config: Config, chance: random.Random) -> Config:
    """Return a copy of a config with one to three values replaced, taken out, or put elsewhere."""
    plain = copy.deepcopy(config.to_dict())
    for _ in range(chance.randint(1, 3)):
        every = list(places(plain))
        path = chance.choice(every)
        node = plain
        for key in path[:-1]:
            node = node[key]
        if isinstance(node, tuple):
            continue
        what = chance.random()
        if what < 0.15 and isinstance(node, dict):
            node.pop(path[-1])
        elif what < 0.25 and isinstance(node, dict):
            node[f'{path[-1]}x'] = node.pop(path[-1])
        elif what < 0.35:
            other = plain
            for key in chance.choice(every):
                other = other[key] if isinstance(other, dict | list | tuple) and _has(other, key) else other
            node[path[-1]] = copy.deepcopy(other)
        else:
            node[path[-1]] = copy.deepcopy(chance.choice(JUNK))
    return Config(plain, filename=config.filename) if isinstance(plain, dict) else config


def _has(node: Any, key: Any) -> bool:
    try:
        node[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def damaged_text(text: str, chance: random.Random) -> bytes:
    """Return the bytes of a config file, cut off, with bytes exchanged, or with lines taken out.

    Bytes come from those of the file, so that no new program is likely to be written by chance.
    """
    content = bytearray(text.encode())
    what = chance.random()
    if what < 0.3:
        return bytes(content[: chance.randrange(len(content))])
    if what < 0.6:
        lines = text.splitlines(keepends=True)
        del lines[chance.randrange(len(lines))]
        return ''.join(lines).encode()
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(len(content))] = chance.choice(b'()[]{}=,.\'"#\n 0aZ\xff\0')
    return bytes(content)


def everything_in(folder: Path) -> set[tuple[str, int]]:
    """Return the names and sizes of all files below a folder."""
    return {(str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob('*') if path.is_file()}
