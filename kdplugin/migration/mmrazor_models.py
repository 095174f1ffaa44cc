"""The models of an MMRazor config: ``cfg_path`` and ``pretrained``, or a model written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE, _get_cfg_metainfo, _get_package_and_cfg_path
from mmengine.utils import get_installed_path, is_installed

from kdplugin.config_files import parse
from kdplugin.errors import ConfigError
from kdplugin.migration.notes import Note


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Args:
        path: 'mmdet::...' of the config that holds it, None for a model written out.
        config: that config, parsed; its ``model`` is what MMRazor would build. Without a path, a config of the model
            alone.
        weights: of the model zoo, where MMRazor would load them (``pretrained=True``).
    """

    path: str | None
    config: Config
    weights: str | None = None

    @property
    def scope(self) -> str | None:
        return self.path.partition('::')[0] if self.path else None


def read_source(settings: Mapping[str, Any], owner: str, notes: list[Note]) -> Source:
    """Read ``architecture`` or ``teacher`` of an MMRazor config.

    Raises:
        ConfigError: the config does not exist, belongs to a package that is not here, or there is no model.
    """
    if 'cfg_path' not in settings or settings.get('type'):
        if not settings.get('type'):
            raise ConfigError(f'Expected cfg_path or type in {owner} but got {sorted(settings)}. Correct the config.')
        return Source(None, Config(dict(model=copy.deepcopy(settings))))
    path = installed_path(settings['cfg_path'], owner, notes)
    config = parse(path)
    if 'data_preprocessor' in config:
        config.model.data_preprocessor = config.data_preprocessor
    for key, value in settings.items():
        if key not in ('cfg_path', 'pretrained'):
            config.model.setdefault(key, value)
    return Source(path, config, zoo_weights(path, owner) if settings.get('pretrained') else None)


def installed_path(path: str, owner: str, notes: list[Note]) -> str:
    """Return a config path as the installed package has it: names have changed '_' to '-' between releases.

    Raises:
        ConfigError: the package is not installed, or has no such config.
    """
    folder = _configs(path, owner)
    inside = path.partition('::')[2]
    if (folder / inside).is_file():
        return path
    alike = [file for file in (folder / inside).parent.glob('*.py') if _plain(file.name) == _plain(Path(inside).name)]
    if len(alike) != 1:
        raise ConfigError(
            f'Expected the config {path} of the {owner} but {folder} has none of this name. Correct cfg_path.'
        )
    found = f'{path.partition("::")[0]}::{alike[0].relative_to(folder)}'
    notes.append(Note('converted', owner, f'{path} is {found} in the installed release.'))
    return found


def _plain(name: str) -> str:
    return name.replace('-', '_')


def _configs(path: str, owner: str) -> Path:
    """Return the folder of the configs that a package brings."""
    package = MODULE2PACKAGE.get(path.partition('::')[0], '')
    if not package or not is_installed(package):
        raise ConfigError(
            f"Expected a config of mmdet or mmseg for the {owner} but got {path!r}. Write 'mmdet::...' or "
            "'mmseg::...'; classification is no host of kdplugin."
        )
    return Path(get_installed_path(package)) / '.mim' / 'configs'


def zoo_weights(path: str, owner: str) -> str:
    """Return the checkpoint that the model zoo lists for a config.

    Raises:
        ConfigError: it lists none.
    """
    package, inside = _get_package_and_cfg_path(path)
    try:
        return str(_get_cfg_metainfo(get_installed_path(package), inside)['Weights'])
    except (KeyError, ValueError):
        raise ConfigError(
            f'Expected weights for {path} in the model zoo (pretrained=True of the {owner}) but it lists none. Set '
            'teacher_ckpt, or pretrained=False.'
        ) from None


def scoped(source: Source, default_scope: str | None) -> ConfigDict:
    """Return the model of a source, ready to be built."""
    model = copy.deepcopy(source.config.model)
    scope = source.scope or default_scope
    if scope:
        model.setdefault('_scope_', scope)
    return model
