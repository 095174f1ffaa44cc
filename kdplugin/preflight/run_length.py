"""How long a training takes, as far as its config tells, and what in it lies beyond its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.distill.pairs import parse_weight
from kdplugin.distill.schedules import Weight
from kdplugin.distill.settings import parse_task_weight, teacher_weights
from kdplugin.errors import ConfigError
from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings

ENDS = {'max_epochs', 'max_iters'}


@dataclass(frozen=True)
class RunLength:
    """The end of a training.

    Args:
        by_epoch: epochs are counted.
        epochs: None where none are counted.
        iters: None where they follow from the number of images.
        epoch_length: iterations of an epoch, where that is known.
    """

    by_epoch: bool
    epochs: int | None = None
    iters: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunLength | None:
        """Read it from a config; None where it says nothing that can be understood."""
        loop = config.get('train_cfg')
        if not isinstance(loop, Mapping):
            return None
        kind = str(getattr(loop.get('type'), '__name__', loop.get('type') or ''))
        by_epoch = bool(loop.get('by_epoch', True)) if not kind else 'Iter' not in kind
        epochs, iters = (int(loop[key]) if is_whole(loop.get(key)) else None for key in ('max_epochs', 'max_iters'))
        if epochs is None and iters is None:
            return None
        return cls(by_epoch, epochs if by_epoch else None, None if by_epoch else iters)

    def end(self, by_epoch: bool) -> int | None:
        """Return the last epoch or iteration, None where it is not known."""
        return self.epochs if by_epoch else self.iters

    def __str__(self) -> str:
        return f'{self.epochs} epochs' if self.by_epoch else f'{self.iters} iterations'


def is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number, which mmengine takes as a float too: 57300.0."""
    return is_count(value) or (isinstance(value, float) and value.is_integer())


def unit(by_epoch: bool) -> str:
    return 'epoch' if by_epoch else 'iteration'


def check_length(found: Findings, config: Config) -> None:
    """The training ends, and validates before it does."""
    loop = config.get('train_cfg')
    if not isinstance(loop, Mapping):
        return
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        value: Any = loop.get(key)
        alone = key in loop and len(ENDS & set(loop)) == 1 and key in ENDS
        if (alone or value is not None) and (not is_whole(value) or value <= 0):
            found.error(
                f'train_cfg.{key}', f'Expected a whole number > 0 but got {value!r}. Count epochs or iterations.'
            )
    length = RunLength.of(config)
    if length is None:
        if 'type' not in loop and 'by_epoch' not in loop:
            found.error(
                'train_cfg',
                'Expected type or by_epoch in train_cfg but got neither. Write '
                "dict(type='EpochBasedTrainLoop', max_epochs=12).",
            )
        return
    end = length.end(length.by_epoch)
    interval, begin = _first_interval(loop), loop.get('val_begin', 1)
    if config.get('val_cfg') is None or end is None:
        return
    for key, value in (('val_interval', interval), ('val_begin', begin)):
        if is_whole(value) and value > end:
            found.warning(
                f'train_cfg.{key}',
                f'Expected a validation within {length} but got {key} {value}. Nothing is validated before the end: '
                f'lower {key}.',
            )


def _first_interval(loop: Mapping[str, Any]) -> Any:
    """Return the shortest distance of validations, where it changes during the training."""
    changes = loop.get('dynamic_intervals')
    later = [
        one[0] + one[1] - 1
        for one in (changes if isinstance(changes, list | tuple) else ())
        if isinstance(one, tuple) and len(one) == 2 and all(map(is_count, one))
    ]
    interval = loop.get('val_interval', 1)
    return min([interval, *later]) if is_whole(interval) else interval


def check_pair_schedules(found: Findings, config: Config) -> None:
    """Every weight of the distillation changes, begins and stops within the training, in units that it counts."""
    model, length = config.get('model'), RunLength.of(config)
    if length is None or not isinstance(model, Mapping) or not is_distillation(model):
        return
    for path, weight, calibration in _weights(model):
        _check_weight(found, path, weight, length)
        end = length.iters
        if calibration is not None and end is not None and calibration >= end:
            found.error(
                f'{path}.calibration_iters',
                f'Expected a calibration within {length} but got {calibration}. Lower it: the weight is '
                'found after it.',
            )


def _weights(model: Mapping[str, Any]) -> Iterator[tuple[str, Weight, int | None]]:
    pairs = model.get('pairs')
    for name, entry in pairs.items() if isinstance(pairs, Mapping) else ():
        if isinstance(entry, Mapping):
            calibration = entry.get('calibration_iters', 20) if 'target_ratio' in entry else None
            try:
                yield f'model.pairs.{name}', parse_weight(str(name), entry), calibration
            except ConfigError:  # said by the engine's own checks
                continue
    for parse, path in ((parse_task_weight, 'model'), (teacher_weights, 'model.teachers')):
        try:
            schedules = parse(model)
        except ConfigError:
            continue
        for name, schedule in schedules.items():
            if schedule is not None:
                yield f'{path}.{name}', Weight(schedule), None


def _check_weight(found: Findings, path: str, weight: Weight, length: RunLength) -> None:
    if not weight.constant and _counts_other(found, path, weight, length):
        return
    end = length.end(weight.by_epoch)
    if end is not None and weight.stop_after is not None and weight.stop_after > end:
        found.warning(
            f'{path}.stop_after',
            f'Expected a stop within {length} but got stop_after {weight.stop_after}. It never stops: lower it, or '
            'leave it out.',
        )
    if end is not None and weight.warmup >= end > 0:
        found.error(
            f'{path}.warmup',
            f'Expected a warm-up within {length} but got {weight.warmup}. The pair never has its whole weight: '
            'lower it.',
        )
    if weight.stop_after is not None and weight.warmup and weight.warmup >= weight.stop_after:
        found.error(
            f'{path}.warmup',
            f'Expected warmup to end before stop_after but got {weight.warmup} and {weight.stop_after}. Lower warmup.',
        )
    for phase in weight.schedule.phases:
        end = length.end(phase.by_epoch)
        if end is not None and phase.begin >= end:
            found.error(
                f'{path}.weight',
                f'Expected every phase to begin within {length} but got {phase}. It never begins: correct begin.',
            )
        elif end is not None and phase.end is not None and phase.end > end and phase.kind != 'constant':
            found.warning(
                f'{path}.weight',
                f'Expected every phase to end within {length} but got {phase}. It never arrives at {phase.stop:g}: '
                'correct end.',
            )


def _counts_other(found: Findings, path: str, weight: Weight, length: RunLength) -> bool:
    by_epoch = (weight.by_epoch and (weight.warmup or weight.stop_after is not None)) or any(
        phase.by_epoch for phase in weight.schedule.phases
    )
    if by_epoch and not length.by_epoch:
        found.error(
            path,
            f'Expected a schedule in iterations but got by_epoch=True in a training of {length}, which counts no '
            'epochs. Write it in iterations.',
        )
        return True
    return False


def check_rates(found: Findings, config: Config) -> None:
    """Every scheduler of the learning rate acts within the training, in units that it counts."""
    length, schedulers = RunLength.of(config), config.get('param_scheduler')
    if length is None or not schedulers:
        return
    for part in typed_below(schedulers, 'param_scheduler', ()):
        _check_scheduler(found, part.path, part.settings, length)


def _check_scheduler(found: Findings, path: str, settings: Mapping[str, Any], length: RunLength) -> None:
    by_epoch = bool(settings.get('by_epoch', True))
    if by_epoch and not length.by_epoch:
        found.error(
            f'{path}.by_epoch',
            f'Expected a scheduler by iterations but got by_epoch=True in a training of {length}. It would never act: '
            'write by_epoch=False.',
        )
        return
    end = length.end(by_epoch)
    if end is None:
        return
    begin, last = settings.get('begin', 0), settings.get('end')
    if is_count(begin) and begin >= end:
        found.error(
            f'{path}.begin',
            f'Expected a scheduler that begins within {length} but got begin={begin}. It would never act: correct it.',
        )
    elif is_count(last) and last > end and str(settings.get('type')) not in ('ConstantLR',):
        found.warning(
            f'{path}.end',
            f'Expected a scheduler that ends with the training of {length} but got end={last}. The rate does not come '
            'down to its last value: set end to the length of the training.',
        )
    elif str(settings.get('type')).endswith('MultiStepLR'):
        steps = settings.get('milestones') or ()
        late = [step for step in steps if is_count(step) and step >= end] if isinstance(steps, list | tuple) else []
        if late:
            found.warning(
                f'{path}.milestones',
                f'Expected milestones within {length} but got {late}. The rate does not fall there: correct them.',
            )
