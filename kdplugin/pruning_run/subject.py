"""A trained model of a config, its training data, and its backbone at a pruned size."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from kdplugin import launch
from kdplugin.distill.model_config import is_distiller, plain_model_config
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.pruning.blocks import blocks_of, prefix_of
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.reports.plain_model import build_plain_model
from kdplugin.weights.mapping.execution import tensors_in
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.tensor_source import TensorSource

STUDENT = 'kdplugin.EVAViTStudent'
SIZED = ('type', 'num_heads', 'ffn_hidden', 'ffn_keep', 'plan', 'init_cfg')
"""Settings of a backbone that pruning replaces."""


@dataclass(frozen=True)
class Subject:
    """A trained model and where its weights came from.

    Args:
        config: whose training data calibrates.
        model: with its weights, in eval mode.
        source: the tensors of its checkpoint.
        prefix: of the backbone in the checkpoint.
        inner: of the backbone in the model.
        left: tensors of the checkpoint that the config does not build.
    """

    config: Config
    model: nn.Module
    source: TensorSource
    prefix: str
    inner: str
    left: tuple[str, ...]

    @property
    def backbone(self) -> nn.Module:
        """The backbone itself."""
        return self.model.get_submodule(self.inner.rstrip('.'))

    @property
    def settings(self) -> dict[str, Any]:
        """The backbone's settings in the config, without those that pruning replaces."""
        place: Any = plain_model_config(self.config)
        for name in self.inner.rstrip('.').split('.'):
            place = place[name]
        return {key: value for key, value in place.to_dict().items() if key not in SIZED}


def teacher_config(config: Config) -> Config:
    """Return a config whose model is what is to be pruned: a distillation's teacher, or the model itself."""
    model: Any = config.get('model') or {}
    if not is_distiller(model):
        return config
    teacher = model.teacher
    config = copy.deepcopy(config)
    config.model = copy.deepcopy(teacher.model) if 'model' in teacher else launch.read_config(teacher.cfg).model
    return config


def open_subject(
    config_file: str | Path,
    checkpoint: str | Path,
    options: Mapping[str, Any] | None = None,
    trust_checkpoint: bool | None = None,
) -> Subject:
    """Build a config's model and give it the weights of a checkpoint; nothing of it may stay random.

    Args:
        config_file: of the teacher, or of a distillation with this teacher.
        checkpoint: whatever ``open_source`` takes; the backbone may have another prefix there.
        options: as of ``--cfg-options``.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        CheckpointError: weights of the model are missing in the checkpoint or of another shape.
    """
    config = teacher_config(launch.read_config(config_file, dict(options or {})))
    model = build_plain_model(config)
    source = open_source(str(checkpoint), trust_checkpoint=trust_checkpoint)
    inner = blocks_of(model).sizes.prefix
    prefix = prefix_of(source, inner, source.name)
    names = {inner + name[len(prefix) :] if name.startswith(prefix) else name: name for name in source}
    own = model.state_dict()
    missing = [name for name in own if name not in names]
    if missing:
        raise CheckpointError(
            f'Expected all {len(own)} tensors of the model in {checkpoint} but {len(missing)} are missing, such as '
            f'{missing[:3]}. Give the checkpoint that was trained with {config_file}.'
        )
    try:
        model.load_state_dict({name: source[names[name]] for name in own}, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f'Expected weights of {checkpoint} that fit {config_file} but got {str(error).splitlines()[-1].strip()} '
            'Give the checkpoint that was trained with it.'
        ) from None
    left = tuple(there for here, there in names.items() if here not in own)
    return Subject(config, model, source, prefix, inner, left)


def calibration_of(
    subject: Subject, batches: int, batch_size: int = 2, seed: int = 0, progress: bool = True
) -> Calibration:
    """Return the model with batches of its training data, preprocessed; see ``calibration_batches``.

    The objective is the sum of the model's losses; of a model without any, the energy of its outputs.
    """
    loaded = calibration_batches(subject, batches, batch_size, seed) if batches else []
    return Calibration(
        subject.model, loaded, run=run_model, objective=total_loss, prefix=subject.inner, progress=progress
    )


def calibration_batches(subject: Subject, batches: int, batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Return batches of the training data, as its pipeline makes them in the order of a seed.

    Raises:
        ConfigError: the config has no training data.
    """
    if not subject.config.get('train_dataloader'):
        raise ConfigError('Expected a train_dataloader to calibrate on but the config has none. Add one.')
    loader = copy.deepcopy(subject.config.train_dataloader).to_dict()
    loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    loader.update(sampler=dict(type='DefaultSampler', shuffle=True), batch_sampler=None)
    loader = {key: value for key, value in loader.items() if key not in ('prefetch_factor', 'pin_memory')}
    preprocess: Any = subject.model.data_preprocessor
    found = itertools.islice(Runner.build_dataloader(loader, seed=seed), batches)
    return [preprocess(batch, False) for batch in found]


def run_model(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """Run an mmengine model on a preprocessed batch, up to its heads' raw outputs."""
    return model(**batch, mode='tensor')


def total_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Return the sum of a model's losses on a preprocessed batch, or half the energy of its outputs if it has none."""
    losses = model(**batch, mode='loss')
    if losses:
        return model.parse_losses(losses)[0]  # type: ignore[operator]
    outputs = [value for value in tensors_in(run_model(model, batch)) if value.requires_grad]
    return sum((value.float().square().mean() for value in outputs), start=0) / 2  # type: ignore[return-value]


def pruned_backbone(subject: Subject, plan: PruningPlan) -> nn.Module:
    """Return the backbone built at the size of a plan, with the slices that it keeps, in eval mode."""
    backbone: nn.Module = MODELS.build(dict(type=STUDENT, plan=plan, **subject.settings))
    state = prune_state(plan.replaced(prefix=subject.inner), subject.model)
    cut = len(subject.inner)
    backbone.load_state_dict({key[cut:]: value for key, value in state.items() if key.startswith(subject.inner)})
    return backbone.eval()


def fragment(subject: Subject, plan: PruningPlan, folder: Path, checkpoint: str, compensated: Sequence[str]) -> str:
    """Return a config that trains or tests the pruned model: the teacher's, with a smaller backbone.

    Args:
        folder: where plan.json, pruned.pth and the config lie.
        checkpoint: of the teacher.
        compensated: parts that were fitted; pruned.pth alone has those.
    """
    base = os.path.relpath(str(subject.config.filename), folder)
    settings = ', '.join(f'{key}={value!r}' for key, value in subject.settings.items())
    place = f"backbone=dict(_delete_=True, type='{STUDENT}', plan={str(folder / 'plan.json')!r}, {settings})"
    for name in reversed(subject.inner.rstrip('.').split('.')[:-1]):
        place = f'{name}=dict({place})'
    fitted = f'; {", ".join(compensated)} fitted to the whole model, which the hook would not do' if compensated else ''
    return (
        f'# {sum(plan.head_counts)} of {plan.depth * plan.num_heads} heads and {sum(plan.neuron_counts)} of '
        f'{plan.depth * plan.hidden} neurons of {checkpoint}\n'
        f"_base_ = ['{base}']\n"
        f'model = dict({place})\n'
        f'# The whole pruned model, neck and heads included{fitted}.\n'
        f'load_from = {str(folder / "pruned.pth")!r}\n'
        '# Or the backbone alone from the teacher, by the plan; not together with load_from:\n'
        f"# custom_hooks = [dict(type='kdplugin.WeightProjectionHook', source={checkpoint!r}, "
        f'target={subject.inner.rstrip(".")!r},\n'
        f'#     plan={str(folder / "plan.json")!r}, min_coverage=1.0)]\n'
    )
