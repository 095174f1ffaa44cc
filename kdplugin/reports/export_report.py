"""What an export prints, and the proof that the exported file is a plain student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import RenderableType
from rich.text import Text

from kdplugin.distill.teachers.teacher import load_strictly
from kdplugin.errors import CheckpointError
from kdplugin.reports.plain_model import build_plain_model
from kdplugin.reports.tables import count, new_table, number
from kdplugin.weights.export import ExportReport
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of


def export_parts(report: ExportReport) -> list[RenderableType]:
    """Return what a person reads after an export: contents, sizes, what was left behind."""
    table = new_table('', 'before', 'after')
    table.add_row('file, MB', number(report.bytes_before / 1e6, 2), number(report.bytes_after / 1e6, 2))
    table.add_row('tensors', number(report.tensors, 0), number(report.tensors, 0))
    table.add_row('values in them', count(report.values), count(report.values))
    table.add_row('weights, MB', *[number(report.weights_bytes / 1e6, 2)] * 2)
    lines = [f'{report.source} -> {report.target}']
    left = f'left behind: {", ".join(report.dropped)}' if report.dropped else 'nothing to leave behind'
    ending = ['averaged weights (EMA): the ones that were validated'] if report.averaged else []
    return [Text('\n'.join(lines)), table, Text('\n'.join([left, *ending]))]


def strict_load(config: Config, path: str | Path) -> str:
    """Build the plain model of a config, load a file into it strictly, and return what matched.

    Raises:
        CheckpointError: the file does not fit the model in every name and shape.
    """
    model = build_plain_model(config)
    weights = state_dict_of(read_checkpoint(path), str(path))
    load_strictly(model, weights, str(path))
    values = sum(value.numel() for value in weights.values())
    total = sum(value.numel() for value in model.state_dict().values())
    return (
        f'strict load into {type(model).__name__} of {config.filename}: {len(weights)} of '
        f'{len(model.state_dict())} tensors, {values:,} of {total:,} values matched'
    )


def require_no_windows(config: Config) -> None:
    """Raise CheckpointError if a block of a config's backbone attends in windows, which timm's ``Eva`` has not."""
    blocks: Any = build_plain_model(config).get_submodule('backbone.blocks')
    windowed = [number for number, block in enumerate(blocks) if getattr(block, 'window', 0)]
    if windowed:
        raise CheckpointError(
            f"Expected a backbone without windows for timm's layout but blocks {windowed} of {config.filename} attend "
            "in windows, which timm's Eva does not: it would compute something else. Use --layout orion."
        )
