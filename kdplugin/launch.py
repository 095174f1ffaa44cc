"""From a config file to a Runner: the one place that prepares a config for training and testing."""

from __future__ import annotations

import ast
import contextlib
import datetime
import importlib
import io
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import kdplugin.registry  # noqa: F401 - teaches mmengine safe loading and where mmseg is
from kdplugin.config_files import config_file, parse
from kdplugin.distill.model_config import is_distillation, plain_model_config
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.hooks.find_checkpoint import latest_complete_checkpoint
from kdplugin.hooks.stop_signals import stop_signals
from kdplugin.preflight.data import require_matching_classes
from kdplugin.preflight.findings import host_mistakes
from kdplugin.preflight.runner_settings import strategy_mistake
from kdplugin.preflight.work_dir import check_writable, work_dir_of
from kdplugin.reports.teacher_metric import data_key, recall, write_measurement
from kdplugin.weights.reading.io import read_checkpoint, trust_checkpoints

SAFE_HOOK = 'kdplugin.SafeCheckpointHook'
DISTILLATION_HOOK = 'kdplugin.DistillationHook'
PROJECTION_HOOK = 'kdplugin.WeightProjectionHook'
CPU_AMP_WRAPPER = 'kdplugin.CPUAmpOptimWrapper'


def read_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Parse a config file and apply ``--cfg-options``: a dict is merged into the config's, an empty one replaces it.

    Raises:
        ConfigError: the file is missing, is not valid Python, or inherits something that is not there.
    """
    file = config_file(path)
    try:
        config = parse(file)
    except SyntaxError as error:
        raise ConfigError(
            f'Expected Python in {path} and its _base_ files but line {error.lineno} of one is not: {error.msg} '
            f'({(error.text or "").strip()}). Correct the line.'
        ) from None
    except Exception as error:  # a config is a program: it can raise anything
        raise ConfigError(
            f'Expected {path} to parse but got {type(error).__name__}: {error}. Check its _base_ files and names.'
        ) from error
    try:
        config.merge_from_dict(options or {})
        for key in (key for key, value in (options or {}).items() if value == {}):
            _empty(config, key)
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f'Expected --cfg-options that fit {path} but got {error}. Name settings that the config has.'
        ) from None
    _import_quietly(config.get('default_scope'))
    return config


def _empty(config: Config, key: str) -> None:
    """Put an empty dict at a dotted key."""
    place: Any = config
    *parents, last = key.split('.')
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = {}


def _import_quietly(scope: str | None) -> None:
    """Import the data sets of mmdet or mmseg, which say on stdout that an optional package is missing."""
    if scope in ('mmdet', 'mmseg'):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f'{scope}.datasets')


def parse_options(items: list[str] | None) -> dict[str, Any]:
    """Read ``key=value`` words as mmengine's ``--cfg-options`` does; a dict may be written as in Python.

    Raises:
        ConfigError: a word has no '=', or its brackets do not match.

    Example:
        >>> parse_options(['train_cfg.max_iters=100', 'scale=[160,160]', "model.backbone.init_cfg={'type': 'Xavier'}"])
        {'train_cfg.max_iters': 100, 'scale': [160, 160], 'model.backbone.init_cfg': {'type': 'Xavier'}}
    """
    options = {}
    for item in items or []:
        key, separator, text = item.partition('=')
        if not separator:
            raise ConfigError(f"Expected --cfg-options key=value but got {item!r}. Write for example 'seed=0'.")
        try:
            options[key] = _parse_value(text)
        except (ValueError, SyntaxError, AssertionError):
            raise ConfigError(
                f'Expected --cfg-options {key}=value with matching brackets but got {text!r}. Correct the value.'
            ) from None
    return options


def _parse_value(text: str) -> Any:
    if text.startswith('{'):
        return ast.literal_eval(text)
    value = DictAction._parse_iterable(text)
    return text.strip('\'"') if isinstance(value, str) else value  # mmengine drops the blanks of a path


def prepare(
    config: Config,
    *,
    work_dir: str | None = None,
    amp: bool = False,
    resume: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Apply the command line to a config and add the hooks that make a run safe.

    Args:
        config: changed in place and returned.
        work_dir: wins over the config's own; by default ``work_dirs/<config name>``.
        amp: train under autocast (bfloat16 on CPUs, float16 with loss scaling on GPUs).
        resume: 'auto' for the newest complete checkpoint of the work dir, or a file.
        launcher: as in mmdet: none, pytorch, slurm or mpi.

    Raises:
        ConfigError: the work dir cannot be written, or amp does not fit the optimizer wrapper.
        CheckpointError: a checkpoint to resume is named but missing.
    """
    config.launcher = launcher
    config.work_dir = str(work_dir_of(config, work_dir))
    check_writable(Path(config.work_dir))
    if amp:
        _use_amp(config)
    _check_strategy(config)
    _add_hooks(config)
    _set_resume(config, resume)
    if launcher != 'none' and not torch.cuda.is_available():
        config.model_wrapper_cfg = dict(
            type='kdplugin.CPUDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
    return config


def _check_strategy(config: Config) -> None:
    if mistake := strategy_mistake(config):
        raise ConfigError(mistake)
    kind = str((config.get('strategy') or {}).get('type', ''))
    hooks = [hook.get('type') for hook in config.get('custom_hooks') or []]
    if 'FSDP' in kind and PROJECTION_HOOK in hooks:
        raise ConfigError(
            f'Expected whole weights for {PROJECTION_HOOK} but {kind} shards them. Project first, with '
            'tools/project_weights.py, and use load_from.'
        )


def _use_amp(config: Config) -> None:
    wrapper = config.get('optim_wrapper')
    kind = wrapper.get('type', 'OptimWrapper') if wrapper else None
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ConfigError(f'Expected an OptimWrapper for --amp but got {kind}. Set mixed precision in the config.')
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        wrapper.type = CPU_AMP_WRAPPER
        for setting in ('loss_scale', 'dtype'):
            wrapper.pop(setting, None)


def _add_hooks(config: Config) -> None:
    hooks = dict(config.get('default_hooks') or {})
    checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))  # the Runner's own default
    if checkpoint is not None and checkpoint.get('type') in ('CheckpointHook', CheckpointHook):
        hooks['checkpoint'] = {**checkpoint, 'type': SAFE_HOOK}
    config.default_hooks = hooks
    custom = list(config.get('custom_hooks') or [])
    if is_distillation(config.get('model') or {}) and not any(hook.get('type') == DISTILLATION_HOOK for hook in custom):
        config.custom_hooks = [*custom, dict(type=DISTILLATION_HOOK)]


def _set_resume(config: Config, resume: str | None) -> None:
    if resume is None:
        return
    if resume != 'auto':
        if not Path(resume).is_file():
            raise CheckpointError(f'Expected a checkpoint to resume but {resume} does not exist. Check the path.')
        found: Path | None = Path(resume)
    else:
        with trust_checkpoints(bool(config.get('trust_checkpoint', False))):
            found = latest_complete_checkpoint(config.work_dir, _other_folders(config))
    if found is None:
        print(f'No complete checkpoint in {config.work_dir}: starting from the beginning.')
        config.resume = False
        return
    config.resume, config.load_from = True, str(found)


def _other_folders(config: Config) -> list[Path]:
    """Return where a recipe saves its checkpoints, if that is not its work dir."""
    folder = ((config.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    return [Path(folder) / Path(config.work_dir).name] if folder and '://' not in str(folder) else []


def build_runner(config: Config) -> Runner:
    """Build the Runner of a prepared config; on machines without a GPU, processes talk through gloo."""
    if config.launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        limit = (config.get('env_cfg', {}).get('dist_cfg') or {}).get('timeout')
        torch.distributed.init_process_group('gloo', timeout=limit and datetime.timedelta(seconds=limit))
    warnings.filterwarnings('ignore', message='.*pkg_resources is deprecated.*')
    with trust_checkpoints(bool(config.get('trust_checkpoint', False))), host_mistakes():
        runner_type = config.get('runner_type')
        return RUNNERS.build(config) if runner_type else Runner.from_cfg(config)


def train(config: Config) -> Runner:
    """Train a prepared config to its end, or until SIGTERM or SIGUSR1, see ``stop_signals``."""
    with trust_checkpoints(bool(config.get('trust_checkpoint', False))), host_mistakes(), _stoppable(config):
        runner = build_runner(config)
        if isinstance(runner.model, torch.nn.Module):  # FlexibleRunner builds it later
            require_matching_classes(config, runner.model)
        runner.train()
    return runner


def _stoppable(config: Config) -> contextlib.AbstractContextManager[None]:
    """Note signals where a hook acts on them; another checkpoint hook leaves them deadly."""
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    return stop_signals() if hook.get('type') == SAFE_HOOK else contextlib.nullcontext()


def measure(config: Config, checkpoint: str) -> dict[str, float]:
    """Test a checkpoint once and keep the metrics beside it, where runs that it teaches find them.

    Raises:
        CheckpointError: as ``test``, or what is kept is damaged.
    """
    key = data_key(config)
    known = recall(checkpoint, data=key[0]) if Path(checkpoint).is_file() else []
    if known:
        return known[0].metrics
    metrics = test(config, checkpoint)
    if is_main_process():
        write_measurement(checkpoint, key, metrics)
    return metrics


def test(config: Config, checkpoint: str) -> dict[str, float]:
    """Test a checkpoint with the config's test loop and return its metrics.

    Raises:
        CheckpointError: the file is missing, unsafe, or does not hold every weight of the model.
    """
    if not Path(checkpoint).is_file():
        raise CheckpointError(f'Expected a checkpoint to test but {checkpoint} does not exist. Check the path.')
    config.load_from, config.resume = checkpoint, False
    config.model = plain_model_config(config)
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or [] if hook.get('type') != DISTILLATION_HOOK]
    with trust_checkpoints(bool(config.get('trust_checkpoint', False))), host_mistakes():
        runner = build_runner(config)
        _require_weights(runner.model, checkpoint)
        return runner.test()


def _require_weights(model: torch.nn.Module, checkpoint: str) -> None:
    """Load a checkpoint as mmengine will, and refuse what it would only warn of: weights that stay random."""
    content = read_checkpoint(checkpoint)
    weights = content.get('state_dict', content)
    state = OrderedDict((re.sub(r'^module\.', '', key), value) for key, value in weights.items())
    state._metadata = getattr(weights, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    student: Any = model.module if is_model_wrapper(model) else model
    try:
        missing = student.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        missing = re.findall(r'size mismatch for (\S+):', str(error))
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    if missing:
        raise CheckpointError(
            f'Expected {checkpoint} to hold all weights of the model but {len(missing)} tensors are missing or of '
            f'another shape, such as {missing[:3]}. Give the checkpoint that was trained with this config.'
        )
