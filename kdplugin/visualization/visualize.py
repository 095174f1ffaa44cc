"""From a distillation's config and a checkpoint to pictures of what student and teacher see in images."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdplugin import launch
from kdplugin.distill.pairs import Pair
from kdplugin.distill.teachers.preprocessing import Preprocessing
from kdplugin.preflight.findings import host_mistakes
from kdplugin.reports.distillation_pictures import draw_pair, shown_image
from kdplugin.reports.example_images import images_of
from kdplugin.reports.seen_pairs import SeenLevel, mean_numbers
from kdplugin.reports.tables import new_table, number, render
from kdplugin.visualization.both_models import chosen_pairs, look, preprocessed
from kdplugin.visualization.trained_student import Subject, open_subject
from kdplugin.weights.reading.io import trust_checkpoints, write_figure, write_text

NUMBERS = 'numbers.json'
NAMES = ('relative error', 'cosine', 'energy error', 'KL')


def visualize(
    config_file: str | Path,
    images: Sequence[str | Path] = (),
    *,
    checkpoint: str | None = None,
    out: Path,
    count: int = 2,
    pairs: Sequence[str] = (),
    device: str = 'cpu',
    options: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
) -> str:
    """Write a picture for each image and pair, and ``numbers.json``; return a table of the means.

    Args:
        config_file: of a ``kdplugin.Distiller``.
        images: files; without any, the first ``count`` of the validation set.
        checkpoint: of the student's training; None takes the student as its training begins.
        out: folder for what is written.
        count: how many images of the validation set.
        pairs: names of those to draw; without any, all that ever have a weight.
        device: on which both models run.
        options: as of ``--cfg-options``.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        ConfigError: the config is no distillation, or has no such pair.
        DataError, CheckpointError, TapError, PathError: see ``images_of``, ``open_subject``, ``look``.
    """
    config = launch.read_config(config_file, dict(options or {}))
    found = images_of(config, images, count)
    trusting = trust_checkpoint or bool(config.get('trust_checkpoint', False))
    with trust_checkpoints(trusting), host_mistakes():
        subject = open_subject(config, checkpoint, device)
        chosen = chosen_pairs(subject.distillation, pairs, str(config_file))
        out.mkdir(parents=True, exist_ok=True)
        records: list[dict[str, Any]] = []
        seen: dict[str, list[SeenLevel]] = {pair.name: [] for pair in chosen}
        for index, (name, item) in enumerate(found):
            inputs, samples = preprocessed(subject.student, item, name)
            shown = shown_image(inputs[0], Preprocessing.of(subject.student), _shape_of(samples))
            for pair, levels in look(subject, chosen, inputs, samples):
                file = f'{index:02d}_{_safe(Path(name).stem)}_{_safe(pair.name)}.png'
                write_figure(draw_pair(levels, shown, _title(subject, pair, name)), out / file)
                seen[pair.name] += levels
                records.append(dict(image=name, pair=pair.name, picture=file, levels=[_record(one) for one in levels]))
    means = {pair: mean_numbers(levels) for pair, levels in seen.items()}
    content = dict(config=str(config_file), student=subject.state, means=means, pictures=records)
    write_text(out / NUMBERS, json.dumps(content, indent=2, allow_nan=False) + '\n')
    return _summary(subject, chosen, means, [out / record['picture'] for record in records] + [out / NUMBERS])


def _shape_of(samples: Any) -> tuple[int, int] | None:
    return tuple(samples[0].img_shape[:2]) if samples and 'img_shape' in samples[0] else None


def _safe(name: str) -> str:
    return re.sub(r'[^\w-]+', '_', name)


def _title(subject: Subject, pair: Pair, image: str) -> str:
    taps = [_some(side) for side in (pair.student_taps, pair.teacher_taps)]
    where = f'{taps[0]} on both sides' if taps[0] == taps[1] else f'student {taps[0]}, teacher {taps[1]}'
    untrained = '; its adapter has random weights' if pair.name in subject.untrained else ''
    return f"{image}, pair '{pair.name}' ({pair.method.label}): {where}\n{subject.state}{untrained}"


def _some(taps: Sequence[str]) -> str:
    return ', '.join(taps) if len(taps) < 3 else f'{taps[0]} to {taps[-1]} ({len(taps)} taps)'


def _record(level: SeenLevel) -> dict[str, Any]:
    finite = {
        name: None if value is None or not math.isfinite(value) else round(value, 6)
        for name, value in level.numbers.items()
    }
    return dict(level=level.title, student=level.shapes[0], teacher=level.shapes[1], numbers=finite)


def _summary(
    subject: Subject, pairs: Sequence[Pair], means: Mapping[str, Mapping[str, float | None]], files: Sequence[Path]
) -> str:
    table = new_table('pair', *NAMES)
    for pair in pairs:
        table.add_row(pair.name, *(number(means[pair.name].get(name), 3) for name in NAMES))
    notes = [subject.state, 'means over images and levels; relative error 0 and cosine 1 where both sides are equal']
    chosen = [pair.name for pair in pairs if pair.name in subject.untrained]
    if chosen:
        notes.append(f'WARNING adapters of {", ".join(chosen)} have random weights: their maps and numbers say little')
    return '\n'.join([render(table), *notes, *(f'wrote {file}' for file in files)])
