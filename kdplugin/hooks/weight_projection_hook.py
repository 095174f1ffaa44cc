"""A student that starts from projected weights of a wider or deeper model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from kdplugin.checkpoint_schemes import local_file
from kdplugin.distill.rng import preserved_rng
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.hooks.distillation_hook import KEY
from kdplugin.module_paths import find_module
from kdplugin.pruning.plan import PruningPlan, is_pruning_file
from kdplugin.pruning.surgery import projection_plan
from kdplugin.registry import HOOKS
from kdplugin.weights.project import AUTO, Projection, hash_source, load_into, plan_for, project, report_for
from kdplugin.weights.projection.head_counts import Heads
from kdplugin.weights.reading.source import TensorSource, open_source
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.reports.report_text import report_text

FOLDER = 'weight_projection'
RECORD = 'projection'


@HOOKS.register_module()
class WeightProjectionHook(Hook):
    """Load projected weights into the model once, right before training begins.

    A run that resumes from a checkpoint keeps the checkpoint's weights. Every process computes the same tensors for
    itself. The plan, the report and a picture go to ``weight_projection/`` in the work dir, the report's tables to the
    log, and the source's hash into the checkpoints' ``meta['kdplugin']['projection']``.

    Args:
        source: a file, folder or id that ``open_source`` reads, or an address that mmengine knows
            ('torchvision://resnet50').
        target: path of the module that gets the weights; '' for the whole model.
        method: 'truncate', 'average' or 'svd', for axes that change their width.
        layers: which layers of a deeper source are taken: 'uniform', 'first', 'last', 'similarity' or their indices.
        plan: 'auto', or the JSON file of an edited plan (tools/map_weights.py writes one), or of a pruning plan
            (tools/prune_heads.py): the target then gets the slices of the teacher that it keeps.
        min_coverage: the least share of the target's parameters that has to come from the source, 0 to 1.
        prefix: take what begins with it in the source, without it; None takes what lies under the target's own path if
            there is such, else everything.
        subfolder, ema: see ``open_source``.
        heads, head_dim: attention heads where tensors do not tell them: dict(source=16, target=8), or a head's width
            that both sides share.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        ConfigError: a value that cannot be used, or ``load_from`` beside the hook.
        CheckpointError: the source or the plan does not fit, covers too little, or changes nothing.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        *,
        source: str,
        target: str = 'backbone',
        method: str = 'svd',
        layers: str | Sequence[int] = 'uniform',
        plan: str = AUTO,
        min_coverage: float = 0.9,
        prefix: str | None = None,
        subfolder: str | None = None,
        ema: bool = False,
        heads: Heads = None,
        head_dim: int | None = None,
        trust_checkpoint: bool | None = None,
    ) -> None:
        if not 0 <= min_coverage <= 1:
            raise ConfigError(f'Expected min_coverage from 0 to 1 but got {min_coverage}. Give for example 0.9.')
        if plan != AUTO and not Path(plan).is_file():
            raise ConfigError(f"Expected plan='auto' or a file but {plan} does not exist. Check the path.")
        self.source, self.target, self.prefix = source, target, prefix
        self.min_coverage = min_coverage
        self._opening: dict[str, Any] = dict(subfolder=subfolder, ema=ema, trust_checkpoint=trust_checkpoint)
        self._options: dict[str, Any] = dict(plan=plan, method=method, layers=layers, heads=heads, head_dim=head_dim)
        self._resumed = False
        self._record: dict[str, Any] | None = None

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            self.check_load_from(runner._load_from)

    @staticmethod
    def check_load_from(load_from: str | None) -> None:
        """Raise ConfigError if a run would load weights besides."""
        if load_from is not None:
            raise ConfigError(
                f'Expected either WeightProjectionHook or load_from but got both (load_from={load_from!r}): '
                'one would overwrite the other. Remove one of them.'
            )

    def plan(self, model: nn.Module) -> PlanReport:
        """Return the plan for a model in numbers, as ``before_train`` would carry it out; reads no more than it needs.

        Raises:
            CheckpointError, ConfigError, PathError: as for the hook.
        """
        with preserved_rng():
            source = self._open(model)
            part = self._part(model)
            report = report_for(plan_for(source, part, **self._options_for(source, part)), source)
        report.require(self.min_coverage)
        return report

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            self._resumed = True
            self._record = (checkpoint.get('meta') or {}).get(KEY, {}).get(RECORD)

    def before_train(self, runner: Runner) -> None:
        if self._resumed or self._record is not None:
            runner.logger.info(f'WeightProjectionHook does nothing: the run resumes from a checkpoint ({self.source}).')
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        projection, source = self.project_into(model)
        for hook in runner.hooks:
            averaged = getattr(hook, 'ema_model', None)
            if averaged is not None:  # copied in before_run, when the model had its random weights
                load_into(self._part(averaged.module), projection.tensors)
        coverage = projection.report.coverage
        if is_main_process():
            projection.save_records(Path(runner.work_dir) / FOLDER)
            self._record = dict(
                source=self.source, sha256=hash_source(self._path, source), target=self.target, coverage=coverage
            )
        runner.logger.info('\n' + report_text(projection.report))

    def project_into(self, model: nn.Module) -> tuple[Projection, TensorSource]:
        """Give a model its projected weights, as ``before_train`` does; return what was loaded, and from where.

        Raises:
            CheckpointError, ConfigError, PathError: as for the hook.
        """
        with preserved_rng():
            source = self._open(model)
            part = self._part(model)
            projection = project(source, part, min_coverage=self.min_coverage, **self._options_for(source, part))
        if not load_into(part, projection.tensors):
            raise CheckpointError(
                f'Expected {self.source} to change the model but all {len(projection.tensors)} tensors are as they '
                'were. Remove the hook, or init_cfg if it loads the same file.'
            )
        return projection, source

    @property
    def _path(self) -> str:
        return str(local_file(self.source)) if '://' in self.source else self.source

    def _open(self, model: nn.Module) -> TensorSource:
        source = open_source(self._path, prefix=self.prefix or '', name=self.source, **self._opening)
        own = f'{self.target}.'
        if self.prefix is None and self.target and any(name.startswith(own) for name in source):
            return open_source(source, prefix=own)
        return source

    def _options_for(self, source: TensorSource, part: nn.Module) -> dict[str, Any]:
        """Return the options of ``plan_for``, a pruning plan as what it means for these tensors."""
        file = self._options['plan']
        if file == AUTO or not is_pruning_file(file):
            return self._options
        return {**self._options, 'plan': projection_plan(PruningPlan.read(file), source, part)}

    def _part(self, model: nn.Module) -> nn.Module:
        return find_module(model, self.target, 'model') if self.target else model

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self._record is not None:
            checkpoint['meta'].setdefault(KEY, {})[RECORD] = self._record
