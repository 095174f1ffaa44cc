"""Faults as users make them, each with the finding that it must produce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict

DROP = object()
"""Stands for: take the key out."""
WAN = 'configs/wan/wan-lite_tiny.py'
SEG, DET, COCO = 'configs/quickstart/kd_digits.py', 'gfl_kd.py', 'configs/detection/cwd_gfl-r101_gfl-r50_1x_coco.py'


@dataclass(frozen=True)
class Fault:
    """One mistake in a working config.

    Args:
        name: of the kind.
        base: the config that it is put into.
        changes: by dotted path, the new value; ``DROP`` takes a key out.
        where: the beginning of the path that the finding must name.
        says: parts of its message.
        cure: a part of its cure.
        level: of the finding.
        full: it takes a dry run to be found.
        also: a change that takes a function.
    """

    name: str
    base: str
    changes: Mapping[str, Any]
    where: str
    says: str
    cure: str
    level: str = 'error'
    full: bool = False
    also: Callable[[Config], None] | None = field(default=None, compare=False)

    def put_into(self, config: Config) -> None:
        """Change a config."""
        for path, value in self.changes.items():
            change(config, path, value)
        if self.also is not None:
            self.also(config)


def change(config: Config, path: str, value: Any) -> None:
    """Set or drop what is at a dotted path."""
    node: Any = config
    *parents, last = path.split('.')
    for part in parents:
        node = node[int(part)] if isinstance(node, list | tuple) else node[part]
    if isinstance(node, list):
        node[int(last)] = value
    elif value is DROP:
        node.pop(last)
    else:
        node[last] = ConfigDict(value) if isinstance(value, dict) else value


def rename(path: str, key: str) -> Callable[[Config], None]:
    """Return a change that gives the last key of a path another name."""

    def run(config: Config) -> None:
        node: Any = config
        *parents, last = path.split('.')
        for part in parents:
            node = node[int(part)] if isinstance(node, list | tuple) else node[part]
        node[key] = node.pop(last)

    return run
