"""Where a run writes, and whether it can."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from kdplugin.distill.model_config import is_distiller
from kdplugin.distill.settings import teacher_configs
from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings


def work_dir_of(config: Config, chosen: str | None = None) -> Path:
    """Return the work dir of a run: ``chosen``, else the config's own, else ``work_dirs/<config name>``."""
    name = Path(config.filename or 'run').stem
    return Path(chosen or config.get('work_dir') or Path('work_dirs') / name)


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless files can be made in a folder, which is created if need be."""
    probe = folder / f'.writable-{os.getpid()}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f'Expected a writable work dir but {folder} is not: {error.strerror}. Choose another one with --work-dir.'
        ) from None


def check_own_work_dir(found: Findings, config: Config) -> None:
    """No teacher's checkpoint lies where the run saves its own: resuming would take it for one of them."""
    folder, model = work_dir_of(config).resolve(), config.get('model')
    teachers = teacher_configs(model) if isinstance(model, Mapping) and is_distiller(model) else {}
    for teacher in teachers.values():
        file = teacher.get('checkpoint')
        if isinstance(file, str) and '://' not in file and Path(file).expanduser().resolve().parent == folder:
            found.error(
                'work_dir',
                f'Expected a work dir of its own but {folder.name} holds the teacher {file}. A resumed run would take '
                'that for its own checkpoint: choose another one with --work-dir.',
            )


def check_work_dir(found: Findings, config: Config) -> None:
    """The work dir can be made and written; folders that this test makes are removed again."""
    folder = work_dir_of(config)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    found.attempt('work_dir', 'a writable work dir', check_writable, folder)
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()
