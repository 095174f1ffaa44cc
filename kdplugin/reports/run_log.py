"""A finished or running training as its work dir tells it: config, scalars, validations, checkpoints.

mmengine writes one ``<timestamp>/`` per process: ``vis_data/scalars.json`` (a JSON object per line, training
lines have an ``iter``), ``vis_data/config.py`` and ``<timestamp>.log``. A resumed run has several.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mmengine.config import Config

from kdplugin.errors import DataError
from kdplugin.reports.class_tables import class_scalars, match_class_tables, read_class_tables

Rule = Literal['best', 'last']

KNOWN_METRICS = ('mIoU', 'coco/segm_mAP', 'coco/bbox_mAP')
TIMES = ('time', 'data_time', 'step')


@dataclass(frozen=True)
class Validation:
    """One validation: ``step`` counts iterations, or epochs where the run logs by epoch."""

    step: int
    metrics: dict[str, float]
    per_class: dict[str, float]


@dataclass(frozen=True)
class RunLog:
    """A run read from its work dir; ``train`` and ``validations`` are in the order of their steps."""

    work_dir: Path
    config: Config
    train: tuple[dict[str, float], ...]
    validations: tuple[Validation, ...]
    by_epoch: bool
    primary: str
    greater_is_better: bool
    notes: tuple[str, ...] = ()

    def select(self, rule: Rule) -> Validation:
        """Return the best (the earliest of equals) or the last validation."""
        if rule == 'last':
            return self.validations[-1]
        sign = 1 if self.greater_is_better else -1

        def worth(validation: Validation) -> float:
            value = validation.metrics.get(self.primary, math.nan)
            return -math.inf if math.isnan(value) else sign * value

        return max(self.validations, key=worth)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Return the iterations at which a training scalar was logged, and its values."""
        lines = [line for line in self.train if key in line]
        return [int(line['step']) for line in lines], [line[key] for line in lines]

    def train_keys(self) -> list[str]:
        """Return the names of the training scalars in the order in which they first appear."""
        return list(dict.fromkeys(key for line in self.train for key in line))

    def seconds_per_iteration(self) -> float | None:
        """Return the median of the logged iteration times, data loading included."""
        _, times = self.series('time')
        return statistics.median(times) if times else None

    def checkpoint(self, step: int) -> Path | None:
        """Return the checkpoint saved at ``step``, the best-so-far file before the periodic one."""
        unit = 'epoch' if self.by_epoch else 'iter'
        best = sorted(self.work_dir.glob(f'best_*_{unit}_{step}.pth'))
        plain = self.work_dir / f'{unit}_{step}.pth'
        return best[0] if best else plain if plain.is_file() else None


def read_run(work_dir: str | Path) -> RunLog:
    """Read a work dir; what a resumed process trained again replaces what the earlier one had logged.

    Raises:
        DataError: there is no such folder, no scalars, no validation yet, no config, or a damaged file.
    """
    root = Path(work_dir)
    if not root.is_dir():
        raise DataError(f'Expected a work dir but {root} is not a folder. Give the --work-dir of a finished run.')
    files = sorted(root.glob('*/vis_data/scalars.json'))
    if not files:
        raise DataError(
            f'Expected <timestamp>/vis_data/scalars.json in {root} but found none. Give the work dir of a '
            'run that has logged something, with LocalVisBackend among its vis_backends.'
        )
    config = _read_config(root, files)
    by_epoch = _logs_by_epoch(config)
    notes: list[str] = []
    train: dict[int, dict[str, float]] = {}
    validations: dict[int, Validation] = {}
    for file in files:
        lines, segment_notes = _read_scalars(file)
        notes += segment_notes
        new_train = {int(line['step']): line for line in lines if 'iter' in line}
        if new_train:
            first = next(iter(new_train.values()))
            _forget(train, int(first['step']))
            _forget(validations, int(first.get('epoch', 0)) if by_epoch else int(first['step']))
        train |= new_train
        validations |= _read_validations(file, lines)
    if not train or not validations:
        raise DataError(
            f'Expected training steps and at least one validation in {root} but found {len(train)} and '
            f'{len(validations)}. Let the run reach its first validation.'
        )
    ordered = tuple(validations[step] for step in sorted(validations))
    primary, greater = _primary_metric(config, ordered[0].metrics)
    return RunLog(
        work_dir=root,
        config=config,
        train=tuple(train[step] for step in sorted(train)),
        validations=ordered,
        by_epoch=by_epoch,
        primary=primary,
        greater_is_better=greater,
        notes=tuple(notes),
    )


def logged_seconds(work_dir: str | Path) -> float:
    """Return how long the training processes of a run took, from the first to the last time stamp of each log."""
    total = 0.0
    for file in Path(work_dir).glob('*/*.log'):
        text = file.read_text(encoding='utf-8', errors='replace')
        stamps = re.findall(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', text, re.MULTILINE)
        if stamps and '(train)' in text:
            first, last = (datetime.strptime(stamps[end], '%Y/%m/%d %H:%M:%S') for end in (0, -1))
            total += (last - first).total_seconds()
    return total


def _forget(lines: dict[int, Any], start: int) -> None:
    """Drop what an interrupted process logged beyond the point from which its successor trained again."""
    for step in [step for step in lines if step >= start]:
        del lines[step]


def _read_scalars(file: Path) -> tuple[list[dict[str, float]], list[str]]:
    """Read one scalars.json; a killed process leaves a cut-off last line, any other damage is an error."""
    texts = [text for text in file.read_text(encoding='utf-8', errors='replace').splitlines() if text.strip()]
    lines: list[dict[str, float]] = []
    for index, text in enumerate(texts):
        line = _parse_scalars(text)
        if line is not None:
            lines.append(line)
        elif index == len(texts) - 1:
            return lines, [f'the last line of {file.parent.parent.name}/vis_data/scalars.json is cut off']
        else:
            raise DataError(
                f'Expected a JSON object with a step on line {index + 1} of {file} but got {text[:60]!r}. '
                'Restore the file from a copy, or remove that line.'
            )
    return lines, []


def _parse_scalars(text: str) -> dict[str, float] | None:
    """Return the numbers of one line, None where it is not a JSON object with a step."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get('step'), int):
        return None
    return {key: value for key, value in line.items() if isinstance(value, int | float)}


def _read_validations(file: Path, lines: list[dict[str, float]]) -> dict[int, Validation]:
    """Take the validations of one process; step 0 is a validation outside training."""
    found = [line for line in lines if 'iter' not in line and line['step'] > 0 and set(line) - set(TIMES)]
    folder = file.parent.parent
    logs = sorted(folder.glob('*.log'))
    tables = read_class_tables(logs[-1]) if logs else []
    columns = {name for table in tables for row in table.values() for name in row}
    column = next((name for name in ('IoU', 'Dice', 'Fscore') if name in columns), 'IoU')
    per_class = match_class_tables(tables, [line.get(f'm{column}', float('nan')) for line in found], column)
    validations = {}
    for line, values in zip(found, per_class, strict=True):
        by_name = class_scalars(line)
        metrics = {k: v for k, v in line.items() if k not in TIMES and not (by_name and k.endswith('_precision'))}
        validations[int(line['step'])] = Validation(int(line['step']), metrics, values or by_name)
    return validations


def _read_config(root: Path, scalars: list[Path]) -> Config:
    """Read the config of the newest process that logged; a test run may have replaced the one in the root."""
    dumped = [path for file in reversed(scalars) if (path := file.parent / 'config.py').is_file()]
    candidates = dumped[:1] or sorted(root.glob('*.py'))
    if len(candidates) != 1:
        raise DataError(
            f'Expected one dumped config in {root} but found {len(candidates)}. '
            'Leave only the config of this run in its work dir.'
        )
    try:
        return Config.fromfile(candidates[0])
    except Exception as error:  # a config is a program: it can fail in any way
        raise DataError(
            f'Expected a config in {candidates[0]} but reading it failed ({type(error).__name__}: {error}). '
            'Restore the file that the run dumped.'
        ) from None


def _logs_by_epoch(config: Config) -> bool:
    """Tell whether validations are numbered by epoch, as mmengine's LoggerHook does unless told not to."""
    logger = config.get('default_hooks', {}).get('logger') or {}
    return bool(logger.get('log_metric_by_epoch', True))


def _primary_metric(config: Config, metrics: dict[str, float]) -> tuple[str, bool]:
    """Return the metric that ``save_best`` names, or the usual one, and whether more of it is better."""
    hook = config.get('default_hooks', {}).get('checkpoint') or {}
    wanted, rule = hook.get('save_best'), hook.get('rule')
    wanted = wanted[0] if isinstance(wanted, list | tuple) and wanted else wanted
    candidates = [name for name in (wanted, *KNOWN_METRICS) if name in metrics]
    primary = candidates[0] if candidates else next(iter(metrics))
    return primary, rule != 'less' and 'loss' not in primary
