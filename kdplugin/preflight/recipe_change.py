"""In what a distillation differs from the student's own recipe, that it inherits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.preflight.findings import Findings

SECTIONS = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'auto_scale_lr', 'load_from')
"""Parts of a recipe on which its published number rests, besides the student itself."""
SERIOUS = ('lr', 'weight_decay', 'type', 'momentum', 'batch_size', 'max_epochs', 'max_iters', 'milestones', 'gamma')
"""Settings whose change makes another recipe of it; other changes are told as notes."""
SHOWN = 6


def bases_of(file: str) -> list[str]:
    """Return the paths of the configs that a config file inherits directly."""
    try:
        return [Config._get_cfg_path(base, file)[0] for base in Config._get_base_files(file)]
    except Exception:  # a file that does not parse, or names what is not there, is said elsewhere
        return []


def recipe_of(file: str | None) -> Config | None:
    """Return the plain recipe that a distillation inherits, None where there is not exactly one."""
    if not file or not Path(file).is_file():
        return None
    recipes: list[Config] = []
    for base in bases_of(file):
        try:
            config = Config.fromfile(base)
        except Exception:  # noqa: S112 - said where the config itself is read
            continue
        model = config.get('model')
        if not isinstance(model, Mapping):
            continue
        if is_distillation(model):
            inner = recipe_of(base)
            recipes += [inner] if inner is not None else []
        else:
            recipes.append(config)
    return recipes[0] if len(recipes) == 1 else None


def differences(ours: Any, theirs: Any, path: str = '') -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, our value and theirs wherever two configs differ; None stands for what is not there.

    Example:
        >>> list(differences(dict(a=1, b=[1, 2]), dict(a=1, b=[1, 3]), 'x'))
        [('x.b.1', 2, 3)]
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in (one for one in dict.fromkeys([*theirs, *ours]) if one != '_scope_'):
            yield from differences(ours.get(key), theirs.get(key), f'{path}.{key}')
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f'{path}.{number}')
    elif ours != theirs:
        yield path, ours, theirs


def check_recipe(found: Findings, config: Config) -> None:
    """The student is trained as its own recipe says: rate, decay, schedule, data and model."""
    model = config.get('model')
    if not isinstance(model, Mapping) or not is_distillation(model):
        return
    recipe = recipe_of(config.filename)
    if recipe is None:
        found.note('_base_', 'the config inherits no plain recipe, so nothing is known of changes in it.')
        return
    changes = [
        change for key in SECTIONS for change in differences(_plain(config.get(key)), _plain(recipe.get(key)), key)
    ]
    changes += list(differences(_plain(model.get('student')), _plain(recipe.get('model')), 'model.student'))
    changes = [change for change in changes if not _is_judged(found, change[0])]
    for path, ours, theirs in changes[:SHOWN]:
        _tell(found, path, ours, theirs, Path(recipe.filename).name)
    if len(changes) > SHOWN:
        names = ', '.join(path for path, _, _ in changes[SHOWN : 2 * SHOWN])
        found.note('_base_', f'{len(changes) - SHOWN} more differences from the recipe of the student: {names}.')


def _is_judged(found: Findings, path: str) -> bool:
    """Tell whether a change is called a fault already, with a cure that is better than to repeat it elsewhere."""
    judged = [one.where for one in found if one.level != 'note']
    return any(
        f'{path}.'.startswith(f'{where}.') or f'{where}.'.startswith(f'{path}.') for where in judged if '.' in where
    )


def _tell(found: Findings, path: str, ours: Any, theirs: Any, recipe: str) -> None:
    key = next((part for part in reversed(path.split('.')) if not part.isdigit()), path)
    serious = key in SERIOUS or path.partition('.')[0] == 'param_scheduler' or 'pipeline' in path
    say = found.warning if serious and 'init_cfg' not in path else found.note
    say(
        path,
        f'Expected the recipe of {recipe} for the student, {_short(theirs)}, but got {_short(ours)}. If that is not '
        'meant, remove the line; else train the baseline with it too.',
    )


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else value


def _short(value: Any) -> str:
    text = 'nothing' if value is None else repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
