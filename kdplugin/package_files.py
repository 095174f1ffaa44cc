"""What comes with the package besides its modules: in a wheel copied into ``.mim``, in a checkout linked from there.

``kdplugin/.mim`` is where OpenMMLab's mim and mmengine's ``package::config`` look (mmengine/config/utils.py).
"""

from __future__ import annotations

from pathlib import Path

from kdplugin.errors import ConfigError

FILES = Path(__file__).resolve().parent / '.mim'
CONFIGS = (FILES / 'configs').resolve()
TOOLS = (FILES / 'tools').resolve()


def tool_names() -> list[str]:
    """Return the names of the tools that come with the package, such as 'train' and 'dist_train'."""
    return sorted(path.stem for path in TOOLS.glob('*') if path.suffix in ('.py', '.sh'))


def tool_file(name: str) -> Path:
    """Return the script of a tool.

    Args:
        name: without folder and ending.

    Raises:
        ConfigError: no tool has this name.

    Example:
        >>> tool_file('train').name
        'train.py'
    """
    known = tool_names()
    if name not in known:
        from kdplugin.module_paths import did_you_mean  # brings torch

        raise ConfigError(
            f'Expected the name of a tool but got {name!r}.{did_you_mean(name, known)} The tools are: '
            f'{", ".join(known)}.'
        )
    return next(path for path in (TOOLS / f'{name}.py', TOOLS / f'{name}.sh') if path.is_file())
