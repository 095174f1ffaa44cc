"""What single checks say of a config that is written as a dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.findings import Findings

DATASET = dict(type='BaseSegDataset', metainfo=dict(classes=('a', 'b')))


def says(check: Callable[..., Any], config: dict[str, Any], *args: Any) -> list[tuple[str, str, str]]:
    """Return level, path and message of every finding of a check."""
    found = Findings()
    check(found, Config(config), *args)
    for one in found:
        if one.level != 'note':
            assert all(one.parts), f'not "Expected X but got Y. Do Z.": {one.message}'
    return [(one.level, one.where, one.message) for one in found]


def places(check: Callable[..., Any], config: dict[str, Any], *args: Any) -> list[tuple[str, str]]:
    """Return level and path alone."""
    return [(level, where) for level, where, _ in says(check, config, *args)]


def loader(sampler: str = 'DefaultSampler', **changes: Any) -> dict[str, Any]:
    """Return a data loader that is right."""
    return dict(
        batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(type=sampler, shuffle=False),
        dataset=dict(DATASET), **changes,
    )  # fmt: skip
