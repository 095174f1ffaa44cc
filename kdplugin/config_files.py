"""Where a config is: a path, or ``package::folder/file.py`` for those that come with a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

import kdplugin.registry  # noqa: F401 - teaches mmengine where the packages are
from kdplugin.errors import ConfigError

SCOPE = 'kdplugin'


def config_file(reference: str | Path) -> Path:
    """Return the file of a config, given by its path or as ``package::folder/file.py``: kdplugin's, mmdet's or mmseg's.

    Raises:
        ConfigError: there is none.
    """
    if '::' in str(reference):
        try:
            return Path(Config._get_cfg_path(str(reference), '')[0])
        except Exception as error:  # assertions among them
            raise ConfigError(
                f'Expected a config of an installed package but {reference} is none: {str(error).rstrip(".")}. '
                'Check package and path.'
            ) from None
    if not Path(reference).is_file():
        raise ConfigError(f'Expected a config file but {reference} does not exist. Check the path.')
    return Path(reference)


def parse(reference: str | Path) -> Config:
    """Return a config as mmengine reads it, without the scope that it puts on what is inherited from ``kdplugin::...``.

    In that scope types without a prefix would be ours alone. Ours always carry theirs, so those of our recipes are of
    the default scope, as if a file beside it were inherited.

    Args:
        reference: as ``config_file`` takes it.

    Raises:
        ConfigError: there is no such file.
        Exception: whatever a config, which is a program, raises.
    """
    config = Config.fromfile(str(config_file(reference)))
    _forget_scope(config._cfg_dict)
    return config


def _forget_scope(value: Any) -> None:
    if isinstance(value, dict):
        if value.get('_scope_') == SCOPE:
            del value['_scope_']
        for inner in dict.values(value):  # ConfigDict's own would import what a lazy config names
            _forget_scope(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _forget_scope(inner)
