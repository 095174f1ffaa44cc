"""lit_wsl's WeightMapper from a checkout of its repository, asked as its own page says."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def load(path: str | Path) -> type:
    """Return the WeightMapper class of a checkout; a stub stands in for lightning, which only its logger needs.

    Raises:
        SystemExit: there is no lit_wsl below the path.
    """
    folder = Path(path)
    folder = folder / 'src' if (folder / 'src').is_dir() else folder
    if not (folder / 'lit_wsl').is_dir():
        raise SystemExit(f'error: Expected a checkout of lit_wsl but {path} has no lit_wsl. Give its folder.')
    for name in [name for name in sys.modules if name.split('.')[0] == 'lit_wsl']:
        del sys.modules[name]
    if 'lightning' not in sys.modules and importlib.util.find_spec('lightning') is None:
        for name in ('lightning', 'lightning.pytorch', 'lightning.pytorch.utilities'):
            sys.modules[name] = types.ModuleType(name)
        sys.modules['lightning.pytorch.utilities'].rank_zero_only = lambda function: function  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module('lit_wsl.models.weight_mapper').WeightMapper
    finally:
        sys.path.remove(str(folder))


def mapping_of(
    mapper_class: type, source: nn.Module | Mapping[str, Tensor], target: nn.Module, inputs: Any = None
) -> dict[str, str]:
    """Return its 1:1 mapping {source name: target name}."""
    logging.disable(logging.CRITICAL)
    try:
        if isinstance(source, nn.Module):
            mapper = mapper_class(source, target, dummy_input=inputs)
        else:
            mapper = mapper_class.from_state_dict(source, target, dummy_input=inputs)
        validates = 'validate_outputs' in inspect.signature(mapper.suggest_mapping).parameters
        answer = mapper.suggest_mapping(validate_outputs=False) if validates else mapper.suggest_mapping()
        if isinstance(answer, tuple):
            answer = answer[0]
        return dict(answer.get_mapping() if hasattr(answer, 'get_mapping') else answer)
    finally:
        logging.disable(logging.NOTSET)
