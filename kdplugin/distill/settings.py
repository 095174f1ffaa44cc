"""The keys of a ``kdplugin.Distiller``: what they mean, and everything that can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdplugin.distill.pairs import complaint
from kdplugin.distill.schedules import Schedule, parse_schedule
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean

SETTINGS = ('student', 'teacher', 'teachers', 'pairs', 'frozen', 'task_weight', 'alpha', 'data_preprocessor')


def distiller_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a ``kdplugin.Distiller`` config."""
    for key in config:
        if key not in SETTINGS:
            yield ConfigError(
                f'Expected keys {list(SETTINGS)} in kdplugin.Distiller but got {key!r}.{did_you_mean(key, SETTINGS)}'
            )
    if not config.get('student'):
        yield ConfigError('Expected a student in kdplugin.Distiller but got none. Write student=_base_.model.')
    elif not isinstance(config['student'], Mapping) or 'type' not in config['student']:
        yield ConfigError(
            f'Expected the model of a recipe, with a type, as student but got {_keys(config["student"])}. Write '
            'student=_base_.model, or weights that it begins with as load_from.'
        )
    pairs = config.get('pairs') or {}
    if not isinstance(pairs, Mapping) or not all(isinstance(pair, Mapping) for pair in pairs.values()):
        yield ConfigError(
            f'Expected pairs to be a dict of dicts by name but got {pairs!r}. Write pairs=dict(name=dict(...)).'
        )
    else:
        yield from _teacher_mistakes(config, pairs)
    frozen = config.get('frozen') or ()
    if not isinstance(frozen, Sequence) or isinstance(frozen, str) or not all(isinstance(one, str) for one in frozen):
        yield ConfigError(f"Expected frozen to be a list of patterns but got {frozen!r}. Write frozen=['backbone'].")
    for parse in (parse_task_weight, teacher_weights):
        yield from complaint(parse, config)


def _keys(value: Any) -> str:
    return f'the keys {sorted(map(str, value))}' if isinstance(value, Mapping) else repr(value)


def _teacher_mistakes(config: Mapping[str, Any], pairs: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield what is wrong between pairs and the teachers that they name."""
    teachers = config.get('teachers')
    if teachers is not None and config.get('teacher'):
        yield ConfigError('Expected either teacher or teachers in kdplugin.Distiller but got both. Keep one of them.')
        return
    if teachers is None:
        if config.get('teacher') and not isinstance(config['teacher'], Mapping):
            yield ConfigError(
                f'Expected teacher to be a dict but got {config["teacher"]!r}. Write teacher=dict(cfg=..., '
                'checkpoint=...).'
            )
        if pairs and not config.get('teacher'):
            yield ConfigError(
                'Expected a teacher for the pairs but got none. Write teacher=dict(cfg=..., checkpoint=...).'
            )
        for name, pair in pairs.items():
            if 'teacher' in pair:
                yield ConfigError(
                    f'Expected teachers=dict({pair["teacher"]}=dict(...)) for the teacher that pair {name!r} names but '
                    'got a single one. Leave teacher out of the pair.'
                )
        return
    if not isinstance(teachers, Mapping) or not all(isinstance(one, Mapping) for one in teachers.values()):
        yield ConfigError(
            f'Expected teachers to be a dict of dicts by name but got {teachers!r}. Write teachers=dict(big=dict(...)).'
        )
        return
    for name, pair in pairs.items():
        if pair.get('teacher') not in teachers:
            known = ', '.join(map(repr, teachers))
            yield ConfigError(
                f'Expected teacher to be one of {known} in pair {name!r} but got {pair.get("teacher")!r}.'
                f'{did_you_mean(str(pair.get("teacher")), teachers)} Name the one to learn from.'
            )
    for name in teachers.keys() - {pair.get('teacher') for pair in pairs.values()} if pairs else ():
        yield ConfigError(f'Expected every teacher to teach but no pair names {name!r}. Add a pair or remove it.')


def teacher_configs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configs of all teachers by name, as ``build_teacher`` takes them; a single one is called 'teacher'."""
    return {name: {key: one[key] for key in one if key != 'weight'} for name, one in _teachers(config).items()}


def _teachers(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    teachers = config.get('teachers') or {'teacher': config.get('teacher')}
    if not isinstance(teachers, Mapping):
        return {}
    return {name: one for name, one in teachers.items() if isinstance(one, Mapping) and one}


def teacher_weights(config: Mapping[str, Any]) -> dict[str, Schedule]:
    """Return the factor that each teacher's config gives to its pairs.

    Raises:
        ConfigError: it is no number or schedule.
    """
    return {
        name: parse_schedule(one.get('weight', 1.0), f'teacher {name!r}') for name, one in _teachers(config).items()
    }


def parse_task_weight(config: Mapping[str, Any]) -> dict[str, Schedule | None]:
    """Read ``task_weight`` or ``alpha``.

    Raises:
        ConfigError: a value that is no number or schedule, or both keys.
    """
    alpha = config.get('alpha')
    if alpha is None:
        return {'task_weight': parse_schedule(config.get('task_weight', 1.0), 'task_weight')}
    if 'task_weight' in config:
        raise ConfigError(
            'Expected either alpha or task_weight in kdplugin.Distiller but got both. alpha implies task_weight.'
        )
    return {'alpha': parse_schedule(alpha, 'alpha', most=1.0)}


def plain(value: Any) -> Any:
    """Reduce a config value to dicts, lists, numbers and strings that any safe reader can load."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
