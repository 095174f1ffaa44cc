"""Dotted paths and patterns to modules and parameters of a model, with a suggestion on every miss."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from kdplugin.errors import PathError


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ' Did you mean 'x' or 'y'?' for the nearest known names, or an empty string."""
    known = list(known)
    nearest = difflib.get_close_matches(wrong, known, n=3, cutoff=0.6)
    if not nearest:
        last = wrong.rsplit('.', 1)[-1]
        nearest = [name for name in known if name.rsplit('.', 1)[-1] == last][:3]
    return f' Did you mean {" or ".join(map(repr, nearest))}?' if nearest else ''


def find_module(model: nn.Module, path: str, owner: str) -> nn.Module:
    """Return the submodule at a dotted path.

    Args:
        model: where to look.
        path: for example 'decode_head.conv_seg' or 'backbone.layer4.0'.
        owner: how the message calls the model, for example 'student'.

    Raises:
        PathError: no such module; the message names the nearest ones.
    """
    module: nn.Module | None = model
    for part in path.split('.'):
        module = module._modules.get(part) if module is not None else None
    if module is None:
        names = [name for name, _ in model.named_modules() if name]
        children = [name for name, _ in model.named_children()]
        raise PathError(
            f'Expected a module path of the {owner} but got {path!r}.{did_you_mean(path, names)} '
            f'Its top-level modules are {children}.'
        )
    return module


def match_modules(model: nn.Module, patterns: Sequence[str], owner: str) -> list[str]:
    """Return the names of modules and parameters that patterns select, in model order.

    A pattern is a dotted path or a shell pattern over one ('backbone.layer[12]', 'backbone.*.bn*').

    Raises:
        PathError: a pattern selects nothing.
    """
    names = [name for name, _ in model.named_modules() if name]
    names += [name for name, _ in model.named_parameters()]
    selected: dict[str, None] = {}
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise PathError(
                f'Expected a pattern that selects something in the {owner} but {pattern!r} matches nothing.'
                f'{did_you_mean(pattern, names)} Name a module or parameter.'
            )
        selected.update(dict.fromkeys(matched))
    return sorted(selected, key=names.index)
