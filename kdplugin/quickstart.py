"""The quickstart: data, teacher, baseline, distilled student, comparison. Finished parts are not run again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdplugin import launch, package_files
from kdplugin.datasets.digit_drawing import SceneSettings
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.distill.model_config import is_distiller
from kdplugin.errors import ConfigError
from kdplugin.hooks.safe_checkpoint_hook import latest_complete_checkpoint
from kdplugin.reports.compare import compare
from kdplugin.reports.comparison_report import comparison_parts, write_comparison
from kdplugin.reports.run_log import logged_seconds, read_run
from kdplugin.reports.tables import show
from kdplugin.weights.reading.io import hash_file

CONFIGS = package_files.CONFIGS / 'quickstart'
DATA = Path('data') / 'digit_scenes'
REPORT = Path('work_dirs') / 'quickstart_report'
TRAIN_TOOL = package_files.TOOLS / 'train.py'
STATE = 'quickstart_state.json'


@dataclass(frozen=True)
class Part:
    """One training run of the quickstart.

    Args:
        config: a file in configs/quickstart, without its ending.
        seed: of the run.
    """

    config: str
    seed: int = 0

    @property
    def work_dir(self) -> Path:
        return Path('work_dirs') / (self.config if self.seed == 0 else f'{self.config}_seed{self.seed}')

    @property
    def options(self) -> list[str]:
        return [f'randomness.seed={self.seed}']


def make_data() -> dict[str, Any]:
    """Draw the digit scenes that the quickstart configs read, or find them in place."""
    arguments = launch.read_config(CONFIGS / 'baseline_digits.py').digit_scenes.to_dict()
    counts = {name: arguments.pop(name) for name in ('train', 'val', 'size', 'seed')}
    report = make_digit_scenes(DATA, settings=SceneSettings(**arguments), **counts)
    print(report)
    return report.meta


def run_part(part: Part, data_hash: str) -> bool:
    """Train one part unless it is finished, resuming it where it stopped; return False if it is reused.

    A part is finished when its state file says so for the same config, data and teacher. A folder that belongs to
    other settings is renamed to ``<name>.previous``.
    """
    fingerprint = _fingerprint(part, data_hash)
    state_file = part.work_dir / STATE
    state = json.loads(state_file.read_text()) if state_file.is_file() else {}
    if state.get('fingerprint') == fingerprint and state.get('finished'):
        print(f'{part.work_dir}: finished before, reused.')
        return False
    if part.work_dir.exists() and state.get('fingerprint') != fingerprint:
        _set_aside(part.work_dir)
    part.work_dir.mkdir(parents=True, exist_ok=True)
    state_file.write_text(json.dumps({'fingerprint': fingerprint, 'finished': False}))
    _train(part)
    state_file.write_text(json.dumps({'fingerprint': fingerprint, 'finished': True}))
    return True


def _set_aside(folder: Path) -> None:
    number = next(n for n in range(1, 1000) if not folder.with_name(f'{folder.name}.previous{n}').exists())
    folder.rename(folder.with_name(f'{folder.name}.previous{number}'))


def _fingerprint(part: Part, data_hash: str) -> str:
    config = launch.read_config(CONFIGS / f'{part.config}.py', launch.parse_options(part.options))
    digest = hashlib.sha256(f'{config.pretty_text}{data_hash}'.encode())
    if is_distiller(config.model):
        checkpoint = Path(config.model.teacher.checkpoint)
        digest.update(hash_file(checkpoint).encode() if checkpoint.is_file() else b'no teacher yet')
    return digest.hexdigest()[:16]


def _train(part: Part) -> None:
    command = [sys.executable, str(TRAIN_TOOL), str(CONFIGS / f'{part.config}.py'), '--work-dir', str(part.work_dir)]
    if latest_complete_checkpoint(part.work_dir) is not None:
        command.append('--resume')
    code = subprocess.run([*command, '--cfg-options', *part.options], check=False).returncode  # noqa: S603
    if code != 0:
        raise ConfigError(f'Expected {part.config} to train but it stopped with exit code {code}. Read its log above.')


def run_demo() -> None:
    """Run data, teacher, baseline and KD at seed 0 in the current folder, then print the comparison and its picture."""
    began = time.perf_counter()
    data_hash = make_data()['sha256']
    parts = [Part('teacher_digits'), Part('baseline_digits'), Part('kd_digits')]
    for number, part in enumerate(parts, start=1):
        _announce(f'part {number} of {len(parts)}: {part.config}', began)
        run_part(part, data_hash)
    _announce('comparison', began)
    teacher, baseline, kd = (part.work_dir for part in parts)
    comparison = compare(baseline, kd, teacher, 'best')
    pictures = write_comparison(comparison, REPORT)
    show(*comparison_parts(comparison))
    print(f'picture: {next(path for path in pictures if path.name == "report.png")}')


def run_seeds(seeds: Sequence[int]) -> dict[str, Any]:
    """Train baseline and KD for several seeds under one teacher; return mIoU by seed, mean gain and minutes.

    ``minutes`` is what the runs that this call trained took by their own logs; ``reused`` names the other runs with
    theirs.
    """
    began = time.perf_counter()
    data_hash = make_data()['sha256']
    teacher = Part('teacher_digits')
    students = {seed: [Part(f'{name}_digits', seed) for name in ('baseline', 'kd')] for seed in seeds}
    trained = 0.0
    reused: dict[str, float] = {}
    for part in (teacher, *(part for pair in students.values() for part in pair)):
        _announce(f'seed {part.seed}: {part.config}', began)
        fresh = run_part(part, data_hash)
        minutes = logged_seconds(part.work_dir) / 60
        trained += minutes if fresh else 0
        reused |= {} if fresh else {part.work_dir.name: round(minutes, 1)}
    rows = []
    for seed, pair in students.items():
        baseline, kd = (round(best_score(part.work_dir), 2) for part in pair)
        rows.append({'seed': seed, 'baseline': baseline, 'kd': kd})
    gains = [row['kd'] - row['baseline'] for row in rows]
    return {
        'seeds': rows,
        'mean_gain': round(sum(gains) / len(gains), 2),
        'minutes': round(trained, 1),
        'reused': reused,
        'teacher': round(best_score(teacher.work_dir), 2),
        'rule': 'best validation mIoU of each run',
    }


def best_score(work_dir: Path) -> float:
    """Return the best validation mIoU of a run, in points."""
    return read_run(work_dir).select('best').metrics['mIoU']


def _announce(text: str, began: float) -> None:
    print(f'\n=== {(time.perf_counter() - began) / 60:5.1f} min  {text} ===', flush=True)
