"""An MMRazor 1.x distillation config as a config of ``kdplugin.Distiller``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin.config_files import parse
from kdplugin.distill.ground_truth import is_segmentor
from kdplugin.distill.probe import PROBE_SIZE
from kdplugin.distill.teachers.preprocessing import preprocessing_difference
from kdplugin.distill.teachers.teacher import build_teacher_model
from kdplugin.errors import ConfigError
from kdplugin.migration.config_text import Source as Code
from kdplugin.migration.config_text import assignment, difference, plain, statements
from kdplugin.migration.mmrazor_models import Source, read_source, scoped
from kdplugin.migration.mmrazor_settings import runner_settings, stop_epoch
from kdplugin.migration.mmrazor_terms import pairs_of, read_terms
from kdplugin.migration.notes import Note, leftovers
from kdplugin.migration.observe import Observation, observe
from kdplugin.migration.training_size import training_size
from kdplugin.module_paths import did_you_mean

ALGORITHMS = ('SingleTeacherDistill', 'FpnTeacherDistill')
KEYS = (
    'type', '_scope_', 'architecture', 'teacher', 'teacher_ckpt', 'teacher_trainable', 'teacher_norm_eval',
    'student_trainable', 'calculate_student_loss', 'teacher_module_inplace', 'module_inplace', 'distiller',
    'data_preprocessor', 'init_cfg',
)  # fmt: skip


@dataclass(frozen=True)
class Migration:
    """An MMRazor recipe said in our words.

    Args:
        name: of the file it came from.
        base: the config that the new one inherits; None if it stands alone.
        student: statements that turn the model of ``base`` into the student; without a base, the student itself.
        model: keys of ``kdplugin.Distiller`` besides type and student.
        settings: what else differs from ``base``.
        notes: what a person should know.
    """

    name: str
    base: str | None
    student: list[str] | dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    notes: list[Note]

    def text(self) -> str:
        """Return the source of the new config."""
        lines = [f'# Migrated from {self.name} of MMRazor 1.x by tools/migrate_mmrazor.py.']
        student: Any = self.student
        if self.base is not None:
            lines += [assignment('_base_', [self.base]), '']
            student = Code('student' if self.student else '_base_.model')
            if self.student:
                lines += ['student = _base_.model', *self.student, '']
        model = dict(_delete_=True) if self.base is not None else {}
        lines.append(assignment('model', dict(**model, type='kdplugin.Distiller', student=student, **self.model)))
        lines += [assignment(key, value) for key, value in self.settings.items()]
        if self.base is not None and self.student:
            lines.append('del student')
        return '\n'.join(lines) + '\n'


def migrate_config(config: Config) -> Migration:
    """Turn an MMRazor 1.x distillation config into one of ``kdplugin.Distiller``.

    Both models are built, with random weights, and run once on torch's meta device: to name the module behind each
    recorded tensor, and to know the sizes on which some weights depend.

    Raises:
        ConfigError: the config is no distillation of one student by one teacher, or is wrong in itself. What has no
            counterpart is a note of that kind and is left out.
    """
    model = config.get('model') or {}
    _check_algorithm(model)
    notes: list[Note] = []
    student = read_source(model['architecture'], 'architecture', notes)
    teacher = read_source(model['teacher'], 'teacher', notes)
    if model.get('data_preprocessor') is not None:
        student.config.model.data_preprocessor = model['data_preprocessor']
    pairs = _pairs(config, student, teacher, notes)
    _tell_teacher(model, notes)
    base = student.path or _inherited(config, student)
    changes, settings = _against(base, config, student, notes)
    parts = dict(teacher=_teacher(model, teacher, notes), pairs=pairs, **_task(model, notes))
    return Migration(Path(config.filename or 'a config').name, base, changes, parts, settings, notes)


def _against(
    base: str | None, config: Config, student: Source, notes: list[Note]
) -> tuple[list[str] | dict[str, Any], dict[str, Any]]:
    """Return what the student and the rest of the recipe differ in from the recipe that they inherit."""
    scope = config.get('default_scope')
    recipe = read_source(dict(cfg_path=base), 'recipe', []).config if base is not None else None
    inherited = plain(recipe, scope) if recipe is not None else {}
    settings = plain(runner_settings(config, inherited, notes), scope)
    if student.weights is not None:
        settings['load_from'] = student.weights
        notes.append(Note('kept', 'architecture', 'pretrained=True: load_from has the weights of the model zoo.'))
    model = plain(student.config.model, scope)
    if recipe is None:
        return model, settings
    gone = inherited['model'].keys() - model.keys()
    if gone:
        raise ConfigError(f'Expected a student like {base} but it lacks {sorted(gone)}. Write the student by hand.')
    changes = difference(inherited, settings)
    unset = [key for key in ('custom_hooks', 'load_from') if inherited.get(key) and key not in settings]
    return list(statements('student', inherited['model'], model)), {**changes, **dict.fromkeys(unset)}


def _check_algorithm(model: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a model is one student with one frozen teacher."""
    kind = str(model.get('type')).removeprefix('mmrazor.')
    if kind not in ALGORITHMS:
        raise ConfigError(
            f'Expected a model of type {" or ".join(ALGORITHMS)} but got {kind}.{did_you_mean(kind, ALGORITHMS)} '
            'Other algorithms of MMRazor have no counterpart.'
        )
    for key in model:
        if key not in KEYS:
            raise ConfigError(f'Expected keys {list(KEYS)} in {kind} but got {key!r}.{did_you_mean(key, KEYS)}')
    for key in ('architecture', 'teacher', 'distiller'):
        if not isinstance(model.get(key), Mapping):
            raise ConfigError(f'Expected {key} in {kind} to be a dict but got {model.get(key)!r}. Complete the config.')
    kind = str(model['distiller'].get('type')).removeprefix('mmrazor.')
    if kind != 'ConfigurableDistiller':
        raise ConfigError(f'Expected a ConfigurableDistiller but got {kind}. It has no counterpart.')
    if model.get('teacher_trainable', False) or not model.get('student_trainable', True):
        raise ConfigError(
            'Expected a student that is trained and a teacher that is not but got teacher_trainable='
            f'{model.get("teacher_trainable", False)}, student_trainable={model.get("student_trainable", True)}. '
            'The teacher is never trained here.'
        )


def _pairs(config: Config, student: Source, teacher: Source, notes: list[Note]) -> dict[str, Any]:
    distiller = config.model['distiller']
    terms = read_terms(distiller, notes)
    if distiller.get('distill_deliveries'):
        names = ', '.join(distiller['distill_deliveries'])
        notes.append(Note('no counterpart', f'deliveries {names}', 'they hand values from the teacher to the student.'))
    size = training_size(student.config.model, config.get('train_dataloader'))
    scope = config.get('default_scope')
    models = [build_teacher_model(dict(model=scoped(source, scope))) for source in (student, teacher)]
    runs = [
        observe(built, [getattr(term, owner).path for term in terms], owner, size or PROBE_SIZE)
        for built, owner in zip(models, ('student', 'teacher'), strict=True)
    ]
    batch = (config.get('train_dataloader') or {}).get('batch_size', 1)
    pairs = pairs_of(terms, runs[0], runs[1], batch, notes)
    _tell_size(pairs, size, runs, batch, notes)
    if not pairs:
        reasons = ' '.join(dict.fromkeys(note.message for note in leftovers(notes)))
        raise ConfigError(f'Expected a distillation loss that has a counterpart but got none. {reasons}')
    end = stop_epoch(config)
    for pair in pairs.values():
        if end is not None:
            pair.update(stop_after=end, by_epoch=True)
        if is_segmentor(models[0]):
            pair.get('loss', pair)['ignore_index'] = None
    if is_segmentor(models[0]):
        message = 'ignore_index=None: MMRazor distils pixels without a label too. Leave it out, and they do not count.'
        notes.append(Note('kept', 'pairs', message))
    difference_text = preprocessing_difference(*models)
    if difference_text:
        cure = "preprocess='own' in the teacher shows it its own."
        notes.append(
            Note('kept', 'teacher', f"sees the student's images, normalised otherwise: {difference_text}; {cure}")
        )
    return pairs


def _tell_size(
    pairs: Mapping[str, Any], size: tuple[int, int] | None, runs: list[Observation], batch: int, notes: list[Note]
) -> None:
    """Say at which size weights hold that depend on it."""
    if not any(word in note.message for note in notes for word in (' values', ' positions')):
        return
    small = [run.size for run in runs if run.size != size]
    if size is None or small:
        notes.append(Note('no counterpart', 'pairs', 'weights depend on the size of the maps, which is not known.'))
    else:
        text = (
            f"weights that count positions hold for batches of {batch} x {size[0]} x {size[1]}; MMRazor's grow with it."
        )
        notes.append(Note('converted', 'pairs', text))


def _tell_teacher(model: Mapping[str, Any], notes: list[Note]) -> None:
    kind = str(model['type']).removeprefix('mmrazor.')
    ran = 'backbone and neck' if kind == 'FpnTeacherDistill' else 'its whole loss, with ground truth'
    for change in (
        'in eval mode throughout; in MMRazor only its BatchNorm is, dropout and DropPath stay active.',
        'loaded strictly; MMRazor passes over missing and left-over tensors.',
        'no part of the model: it is in no checkpoint, optimizer, EMA copy or DDP bucket.',
        f'MMRazor runs {ran}, also after the distillation has stopped; here it runs what the taps need.',
    ):
        notes.append(Note('changed', 'teacher', change))
    notes.append(
        Note(
            'changed',
            'log',
            "student.loss_x is loss_x, distill.loss_x is loss_kd_x; checkpoints hold the plain student's names.",
        )
    )
    for key in ('teacher_norm_eval', 'teacher_module_inplace', 'module_inplace'):
        if key in model:
            notes.append(
                Note(
                    'left out',
                    key,
                    'not needed: the teacher is always in eval mode, taps are copied where overwritten.',
                )
            )
    if model.get('init_cfg'):
        notes.append(
            Note('no counterpart', 'init_cfg', f'{plain(model["init_cfg"])} of the whole algorithm. Set load_from.')
        )


def _teacher(model: Mapping[str, Any], source: Source, notes: list[Note]) -> dict[str, Any]:
    checkpoint = model.get('teacher_ckpt') or source.weights
    if not checkpoint:
        raise ConfigError('Expected teacher_ckpt but got none. A random teacher teaches nothing: name its checkpoint.')
    if model.get('teacher_ckpt') and source.weights:
        message = (
            'pretrained=True: MMRazor loads teacher_ckpt over the weights of the model zoo, here it is loaded alone.'
        )
        notes.append(Note('changed', 'teacher', message))
    plain_recipe = source.path is not None and set(model['teacher']) <= {'cfg_path', 'pretrained'}
    where = dict(cfg=source.path) if plain_recipe else dict(model=plain(source.config.model))
    return dict(**where, checkpoint=checkpoint)


def _task(model: Mapping[str, Any], notes: list[Note]) -> dict[str, Any]:
    if model.get('calculate_student_loss', True):
        return {}
    notes.append(
        Note('kept', 'calculate_student_loss', "False: the student's own losses weigh nothing, task_weight=0.")
    )
    return dict(task_weight=0.0)


def _inherited(config: Config, student: Source) -> str | None:
    """Return the recipe that a config inherits and whose model is of the student's type."""
    for base in _bases(config.filename):
        if '::' in base and '_base_/' not in base:
            found = parse(base).get('model') or {}
            if found.get('type') == student.config.model.get('type'):
                return base
    return None


def _bases(filename: str | None) -> Iterator[str]:
    """Yield what a config file inherits, in its own words, and what that inherits."""
    for base in Config._get_base_files(filename) if filename and Path(filename).is_file() else ():
        yield base
        if '::' not in base:
            yield from _bases(str(Path(str(filename)).parent / base))
