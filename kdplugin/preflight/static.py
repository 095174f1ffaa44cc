"""The checks that build no model: what a config and the files that it names tell by themselves, in seconds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distiller, learns_velocities
from kdplugin.distill.settings import distiller_mistakes, teacher_configs
from kdplugin.preflight.addresses import check_addresses, check_whole_weights
from kdplugin.preflight.box_settings import check_boxes
from kdplugin.preflight.class_names import (
    check_class_names,
    check_class_weights,
    check_metainfo,
    check_teacher_names,
    configured_classes,
)
from kdplugin.preflight.config_keys import (
    RAZOR_KEYS,
    check_containers,
    check_leftovers,
    check_loops,
    check_near_names,
    check_old_keys,
    check_razor_keys,
)
from kdplugin.preflight.config_types import check_model_types, check_types
from kdplugin.preflight.data import check_classes, check_dataset_files
from kdplugin.preflight.data_counts import check_whole_batches
from kdplugin.preflight.dataset_keys import check_dataset_keys
from kdplugin.preflight.evaluation import check_best, check_metrics, check_suited
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.forms import check_forms
from kdplugin.preflight.frozen_start import check_frozen_start
from kdplugin.preflight.hook_action import check_hooks
from kdplugin.preflight.hook_arguments import check_hook_arguments
from kdplugin.preflight.hook_needs import check_average_order, check_hook_needs
from kdplugin.preflight.hook_settings import check_averages, check_hook_entries
from kdplugin.preflight.inherited import check_lost_hooks, check_variables
from kdplugin.preflight.label_values import check_ignored_class, check_zero_label
from kdplugin.preflight.least_images import check_least_images
from kdplugin.preflight.loaders import check_loaders
from kdplugin.preflight.log_settings import check_log
from kdplugin.preflight.loops import check_intervals, check_loop_roles
from kdplugin.preflight.loss_settings import check_losses
from kdplugin.preflight.models import (
    check_initial_weights,
    check_preprocessing,
    check_pretrained,
    check_teacher_keys,
    pretrained_files,
    student_path,
)
from kdplugin.preflight.monitors import check_patience, check_rules
from kdplugin.preflight.one_cycle import check_one_cycle
from kdplugin.preflight.optimizer_keys import check_clipping, check_groups
from kdplugin.preflight.pair_phases import check_idle_weights, check_phases
from kdplugin.preflight.pair_weights import check_pair_weights
from kdplugin.preflight.pairs import check_pair
from kdplugin.preflight.pipeline_order import check_pipeline_order
from kdplugin.preflight.pipelines import check_pipelines
from kdplugin.preflight.preprocessor import check_preprocessor
from kdplugin.preflight.projection import check_projection_source
from kdplugin.preflight.rates import check_amp, check_batch_and_rate, check_optimizer
from kdplugin.preflight.recipe_change import check_recipe
from kdplugin.preflight.run_length import check_length, check_pair_schedules, check_rates
from kdplugin.preflight.runner_settings import (
    check_backends,
    check_compile,
    check_imports,
    check_inner_keys,
    check_loop_kind,
    check_runner_kind,
    check_words,
    check_wrapped_parts,
)
from kdplugin.preflight.samples import check_samples
from kdplugin.preflight.scheduler_shape import check_scheduler_shapes
from kdplugin.preflight.scheduler_time import check_scheduler_time
from kdplugin.preflight.surroundings import check_colours, check_environment, check_scope
from kdplugin.preflight.teacher_config import (
    check_cache_settings,
    check_teacher_images,
    same_file,
    student_settings,
    teacher_model,
    whole_config,
    with_preprocessor,
)
from kdplugin.preflight.work_dir import check_own_work_dir, check_work_dir


def check_statically(found: Findings, config: Config, gpus: int | None = None) -> bool:
    """Run every check that builds no model; True if all files of the data are there.

    Args:
        found: collects the findings.
        config: stays as it is.
        gpus: processes of the training, where that is known.
    """
    found.run('keys', check_containers, config)
    broken = {finding.where.partition('.')[0] for finding in found.errors}
    config = without(config, broken)
    for check in (check_near_names, check_loops, check_old_keys):
        found.run('keys', check, config)
    found.run('mmrazor', check_razor_keys, config)
    for settings in (
        check_inner_keys,
        check_words,
        check_imports,
        check_loop_kind,
        check_runner_kind,
        check_backends,
        check_log,
        check_compile,
        check_wrapped_parts,
    ):
        found.run('settings', settings, config)
    found.run('scopes', check_scope, config)
    found.run('environment', check_environment, config)
    found.run('work dir', check_work_dir, config)
    found.run('work dir', check_own_work_dir, config)
    found.run('types', check_types, config)
    found.run('types', check_forms, config)
    files_exist = bool(found.run('files', check_dataset_files, config))
    found.run('files', check_samples, config)
    found.run('files', check_addresses, config)
    found.run('files', check_whole_weights, config)
    found.run('files', check_dataset_keys, config)
    found.run('loaders', check_loaders, config)
    found.run('loaders', check_whole_batches, config)
    found.run('pipelines', check_pipelines, config)
    found.run('pipelines', check_pipeline_order, config)
    found.run('preprocessing', check_preprocessor, config)
    found.run('metrics', check_metrics, config)
    found.run('metrics', check_suited, config)
    for monitored in (check_best, check_rules, check_patience):
        found.run('metrics', monitored, config)
    for loops in (check_length, check_loop_roles, check_intervals):
        found.run('length', loops, config)
    for rates in (check_rates, check_scheduler_shapes, check_scheduler_time, check_one_cycle):
        found.run('schedules', rates, config)
    for weights in (check_pair_schedules, check_pair_weights, check_phases, check_idle_weights):
        found.run('schedules', weights, config)
    found.run('pairs', check_least_images, config)
    for hooks in (check_hooks, check_hook_entries, check_hook_needs, check_averages, check_average_order):
        found.run('hooks', hooks, config)
    for hooks in (check_projection_source, check_hook_arguments):
        found.run('hooks', hooks, config)
    for optimizer in (check_optimizer, check_clipping, check_groups):
        found.run('optimizer', optimizer, config)
    found.run('inherited', check_variables, config)
    found.run('inherited', check_lost_hooks, config)
    found.run('losses', check_losses, config)
    found.run('boxes', check_boxes, config)
    found.run('amp', check_amp, config)
    found.run('learning rate', check_batch_and_rate, config, gpus)
    found.run('classes', check_metainfo, config)
    found.run('classes', check_class_names, config)
    found.run('labels', check_zero_label, config)
    found.run('frozen', check_frozen_start, config)
    _check_model(found, config)
    found.run('recipe', check_recipe, config)
    return files_exist


def without(config: Config, keys: set[str]) -> Config:
    """Return a copy of a config without some of its keys."""
    if not keys:
        return config
    plain = {key: value for key, value in config.to_dict().items() if key not in keys}
    return Config(copy.deepcopy(plain), filename=config.filename)


def _check_model(found: Findings, config: Config) -> None:
    model = config.get('model')
    if not model:
        found.error('model', 'Expected a model in the config but got none. Give the config of a training.')
        return
    student, where = student_settings(config), student_path(config)
    files = list(pretrained_files(student))
    load = config.get('load_from')
    found.run('files', check_pretrained, where, files)
    if isinstance(load, str):
        found.run('files', check_pretrained, 'load_from', [load])
    found.run('colours', check_colours, config, student, where)
    found.run('classes', check_class_weights, student, where)
    found.run('labels', check_ignored_class, student, where)
    found.run('files', check_initial_weights, student, where)
    heads: dict[str, Mapping[str, int]] = {where: configured_classes(student)}
    if is_distiller(model):
        _check_distiller(found, config, model, student, heads)
    elif learns_velocities(model):
        found.run('distiller', _check_diffusion, config)
    else:
        found.note('model', 'no kdplugin.Distiller: this trains without a teacher.')
    found.run('classes', check_classes, config, heads)


def _check_diffusion(found: Findings, config: Config) -> None:
    if find_spec('diffusers') is None:
        found.error(
            'model.type',
            'Expected diffusers for kdplugin.DiffusionDistiller but it is not installed. Run pip install '
            "'kdplugin[wan]'.",
        )
        return
    from kdplugin.preflight.diffusion import check_diffusion

    check_diffusion(found, config)


def _check_distiller(
    found: Findings, config: Config, model: Mapping[str, Any], student: Any, heads: dict[str, Mapping[str, int]]
) -> None:
    left = found.run('distiller', check_leftovers, config)
    with found.during('distiller'):
        keys = {key: value for key, value in model.items() if key != 'type' and not _said(key, model, bool(left))}
        for mistake in distiller_mistakes(keys):
            found.error('model', mistake)
    ours = with_preprocessor(student)
    for name, settings in teacher_configs(model).items():
        _check_teacher(found, config, teacher_path(name), settings, ours, heads)
    pairs = model.get('pairs')
    for name, entry in pairs.items() if isinstance(pairs, Mapping) else ():
        if isinstance(entry, Mapping):
            found.run('pairs', check_pair, str(name), entry)
    if not pairs:
        found.warning(
            'model.pairs',
            'Expected pairs by which the student learns but got none: this trains exactly as the plain config does. '
            'Add one, or train the plain config.',
        )


def _said(key: str, model: Mapping[str, Any], left: bool) -> bool:
    """Tell whether a key was judged already, so that the engine need not call it unknown once more."""
    inherited = left and isinstance(model.get('student'), Mapping) and key in model['student']
    return key in RAZOR_KEYS or (inherited and key not in ('student', 'data_preprocessor'))


def _check_teacher(
    found: Findings,
    config: Config,
    where: str,
    settings: Mapping[str, Any],
    ours: Any,
    heads: dict[str, Mapping[str, int]],
) -> None:
    found.run('teacher', check_teacher_keys, settings, where)
    found.run('teacher', check_teacher_images, config, settings, where)
    found.run('cache', check_cache_settings, settings, where)
    with found.during('teacher'):
        theirs = teacher_model(found, settings, where)
    if theirs is None:
        return
    found.run('types', check_model_types, theirs, f'{where}.model')
    found.run('classes', check_teacher_names, config, whole_config(settings), where)
    heads[where] = configured_classes(theirs)
    built = with_preprocessor(theirs)
    if ours is not None and built is not None and settings.get('preprocess') != 'own':
        found.run('preprocessing', check_preprocessing, ours, built, where)
    if same_file(config, settings):
        found.warning(
            f'{where}.checkpoint',
            f'Expected another file than the student begins with but got {settings["checkpoint"]} for both. Correct '
            'load_from or the checkpoint.',
        )


def teacher_path(name: str) -> str:
    """Return where a teacher is in a config."""
    return 'model.teacher' if name == 'teacher' else f'model.teachers.{name}'
