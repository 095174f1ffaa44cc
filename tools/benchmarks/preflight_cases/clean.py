"""Configs that work: what the verifier calls an error in them is a false alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torchvision.models import mobilenet_v3_small

from kdplugin import launch
from kdplugin.errors import KDPluginError
from kdplugin.preflight.verify import verify
from kdplugin.pruning_run.prune import prune_and_report
from preflight_cases.files import save_teacher
from preflight_cases.working import recipes, working_pairs, write_working

ROOT = Path(__file__).parents[3]
ORION = 'configs/orion/teacher_eva-tiny_digits.py'
ORION_TEACHER = Path('work_dirs/orion_digits/teacher/iter_600.pth')


def shipped() -> list[str]:
    """Return the paths of every config of this repository that trains."""
    files = [path for path in sorted((ROOT / 'configs').rglob('*.py')) if '_base_' not in path.parts]
    return [str(path.relative_to(ROOT)) for path in files if Config.fromfile(path).get('model')]


def make_own_weights(configs: list[str]) -> None:
    """Save random weights where our configs expect a file of a model that they train themselves (no folders)."""
    for name in configs:
        teacher = Config.fromfile(name).model.get('teacher') or {}
        file, cfg = teacher.get('checkpoint'), teacher.get('cfg')
        if cfg and file and '://' not in file and Path(file).suffix:
            _save_once(cfg, Path(file))
    _save_once('configs/projection/teacher_mit_digits.py', Path('work_dirs/teacher_mit_digits/iter_600.pth'))
    _save_once(ORION, ORION_TEACHER)
    prune_and_report(
        ORION, str(ORION_TEACHER), 'work_dirs/orion_digits/quarter', heads=2, neurons=0.25, batches=1, size=0,
        progress=False,
    )  # fmt: skip
    Path('checkpoints').mkdir(exist_ok=True)
    torch.save(mobilenet_v3_small().state_dict(), 'checkpoints/mobilenet_v3_small_imagenet.pth')


def _save_once(config: str, file: Path) -> None:
    if not file.is_file():
        save_teacher(config, file)


def check_clean(name: str, static: bool) -> dict[str, Any]:
    """Check a config that works; errors are false alarms."""
    started = time.perf_counter()
    try:
        config = launch.read_config(name)
    except KDPluginError as error:
        return dict(
            config=name, mode='static', unread=str(error)[:300], errors=[str(error)], absent=[], warnings=[],
            broken=[], seconds=0.0,
        )  # fmt: skip
    found = verify(config, static=static)
    errors = [f'{one.where}: {one.message}' for one in found.errors]
    return dict(
        config=name, mode='static' if static else 'dry run',
        errors=[error for error in errors if not _is_absent(error)],
        absent=[error for error in errors if _is_absent(error)],
        warnings=[f'{one.where}: {one.message}' for one in found if one.level == 'warning'],
        broken=found.broken, seconds=round(time.perf_counter() - started, 2),
    )  # fmt: skip


def try_clean(log: Callable[[str], None], dry_runs: int, hosts: bool) -> dict[str, Any]:
    """Check configs that work: ours, generated ones, and the recipes of mmdet and mmseg."""
    own = shipped()
    make_own_weights(own)
    rows = [check_clean(name, static=True) for name in own]
    generated = []
    for package in ('mmdet', 'mmseg'):
        for number, (student, teacher) in enumerate(working_pairs(package, 20)):
            file = Path(f'generated_{package}_{number:02d}.py')
            write_working(package, student, teacher, file)
            generated.append(str(file))
    rows += [check_clean(name, static=True) for name in generated]
    for name in [*own, *generated][:dry_runs]:
        rows.append(check_clean(name, static=False))
        log(f'{name}: {rows[-1]["seconds"]} s')
    theirs = list(_host_recipes(log)) if hosts else []
    for row in (*rows, *theirs):
        for error in row['errors']:
            log(f'FALSE ALARM {row["config"]} ({row["mode"]}): {error}')
        if row['broken']:
            log(f'BROKEN {row["config"]}: {row["broken"]}')
    return dict(own=own, generated=generated, rows=rows, hosts=theirs)


def _host_recipes(log: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Check the recipes that mmdet and mmseg ship, without their data: what is absent is no alarm."""
    for package in ('mmdet', 'mmseg'):
        for number, path in enumerate(recipes(package).values()):
            yield {**check_clean(str(path), static=True), 'config': str(path).partition('.mim/')[2]}
            if number % 100 == 0:
                log(f'{package}: {number}')


def _is_absent(error: str) -> bool:
    return 'does not exist' in error or 'there is no such file' in error
