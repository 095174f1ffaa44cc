"""Did the file of ``init_cfg`` reach the module that names it? mmengine loads what fits and logs the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from kdplugin.preflight.findings import Findings
from kdplugin.reports.tables import count
from kdplugin.weights.reading.io import state_dict_of

HALF = 0.5
SAMPLE = 8
"""Numbers of a tensor by which it is known."""


def check_pretrained_fits(found: Findings, where: str, student: nn.Module) -> None:
    """Every module that begins with the weights of a file has them, whatever the names were on the way.

    Args:
        found: collects the findings.
        where: path of the student in the config.
        student: with initial weights, whose files are all on this disk.
    """
    for name, module, settings in _pretrained(student):
        path = f'{where}.{name}.init_cfg' if name else f'{where}.init_cfg'
        file = str(settings['checkpoint'])
        content = found.attempt(path, 'weights to read', CheckpointLoader.load_checkpoint, file, 'cpu')
        if content is not None:
            _compare(found, path, module, state_dict_of(content, file), settings)


def _pretrained(student: nn.Module) -> Iterator[tuple[str, nn.Module, Mapping[str, Any]]]:
    for name, module in student.named_modules():
        settings = getattr(module, 'init_cfg', None)
        for one in settings if isinstance(settings, list) else [settings]:
            if isinstance(one, Mapping) and one.get('type') == 'Pretrained' and one.get('checkpoint'):
                yield name, module, one


def _compare(
    found: Findings, path: str, module: nn.Module, weights: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    known = {_mark(value) for value in _matrices(weights.values())}
    own = [value for value in _matrices(module.parameters()) if value.numel() > 1]
    loaded = sum(value.numel() for value in own if _mark(value) in known)
    total = sum(value.numel() for value in own)
    if loaded == 0 and total:
        found.error(
            path,
            f'Expected weights of {settings["checkpoint"]} in this module but none of its tensors arrived. '
            f'{_cure(module, weights, settings)}',
        )
    elif loaded < HALF * total:
        found.warning(
            path,
            f'Expected most weights from {settings["checkpoint"]} but {count(loaded)} of {count(total)} arrived. Check '
            'that depth and width are those of the file.',
        )


def _matrices(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the tensors that chance does not make twice: no biases and no norms."""
    yield from (value for value in tensors if value.dim() > 1 and value.is_floating_point())


def _mark(value: Tensor) -> tuple[float, ...]:
    return (value.numel(), *value.detach().flatten()[:SAMPLE].float().tolist())


def _cure(module: nn.Module, weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return what would let the file in: the prefix that its names have, or one of the right shapes."""
    own = {name: value.shape for name, value in module.named_parameters()}
    first = next(iter(own), '')
    prefixes = {name.removesuffix(first) for name in weights if first and name.endswith(f'.{first}')} | {''}
    given = settings.get('prefix') or ''
    for prefix in sorted(prefixes, key=len):
        named = [name for name in own if f'{prefix}{name}' in weights]
        fits = any(weights[f'{prefix}{name}'].shape == own[name] for name in named)
        if fits and prefix.rstrip('.') != given.rstrip('.'):
            return f'Write prefix={prefix!r}.' if prefix else 'Leave out prefix.'
        if named:
            one = max(named, key=lambda name: len(own[name]))
            shape = tuple(weights[f'{prefix}{one}'].shape)
            return f'It holds {shape} for {one}, which has {tuple(own[one])}: give a file of this depth and width.'
    return f'Its names, such as {next(iter(weights), "none")!r}, are not those of the module: give another file.'
