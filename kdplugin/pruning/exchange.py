"""A trained student's backbone in the layouts of others: ORION's own file, and timm's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.pruning.blocks import ANCHOR
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import restore_heads
from kdplugin.weights.export import check_target, student_weights
from kdplugin.weights.layouts.eva import timm_weights
from kdplugin.weights.reading.io import read_checkpoint, write_checkpoint

LAYOUTS = ('orion', 'timm')
BACKBONE = 'backbone.'
ORION_PREFIX = 'img_backbone.'


@dataclass(frozen=True)
class BackboneReport:
    """What went into a file; ``str()`` is the text for a person.

    Args:
        target: the file.
        layout: 'orion' or 'timm'.
        tensors: how many.
        parameters: numbers in them.
        left: tensors of the checkpoint that are no part of the backbone.
        filled: heads that were filled with zeros.
    """

    target: str
    layout: str
    tensors: int
    parameters: int
    left: int
    filled: int

    def __str__(self) -> str:
        return (
            f'{self.target}: {self.tensors} tensors, {self.parameters:,} values in the layout of {self.layout}; '
            f'{self.filled} pruned heads filled with zeros; {self.left} tensors of other parts left out'
        )


def export_backbone(
    source: str | Path,
    target: str | Path,
    layout: str,
    plan: PruningPlan | None = None,
    trust_checkpoint: bool = False,
) -> BackboneReport:
    """Write the backbone of a student's checkpoint as another code base reads it.

    'orion': ``img_backbone.*`` at the teacher's size, so that ORION's unmodified model loads it; what it computes is
    what the student computes. 'timm': the names of timm's ``Eva`` with ``class_token=False``, before its final norm.

    Args:
        source: a checkpoint of a training, with ``backbone.*``.
        target: file to write, .pth or .safetensors.
        layout: 'orion' or 'timm'.
        plan: by which the student was pruned; None for one that was not.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        ConfigError: an unknown layout.
        CheckpointError: there is no backbone, or it cannot be expressed: pruned neurons, or heads without a plan.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f'Expected a layout of {list(LAYOUTS)} but got {layout!r}.{did_you_mean(layout, LAYOUTS)}')
    source, target = Path(source), Path(target)
    check_target(source, target)
    weights = student_weights(read_checkpoint(source, trust_checkpoint=trust_checkpoint), str(source))
    state = backbone_of(weights, str(source))
    tensors = in_layout(state, layout, plan)
    write_checkpoint({'meta': {}, 'state_dict': tensors}, target)
    filled = 0 if plan is None else plan.depth * plan.num_heads - sum(plan.head_counts)
    values = sum(value.numel() for value in tensors.values())
    return BackboneReport(str(target), layout, len(tensors), values, len(weights) - len(state), filled)


def backbone_of(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors under ``backbone.``, without it.

    Raises:
        CheckpointError: there are none of EVA-02's layout.
    """
    state = {key[len(BACKBONE) :]: value for key, value in weights.items() if key.startswith(BACKBONE)}
    if not any(ANCHOR.fullmatch(key) for key in state):
        raise CheckpointError(
            f'Expected backbone.blocks.N.attn.q_proj.weight in {name} but got none. Export a checkpoint of a student '
            'with an EVAViT.'
        )
    return state


def in_layout(state: Mapping[str, Tensor], layout: str, plan: PruningPlan | None) -> dict[str, Any]:
    """Return the tensors of a backbone in another layout, pruned heads filled with zeros.

    Raises:
        CheckpointError: neurons are pruned, or heads are and the plan is not given.
    """
    if plan is None:
        require_whole(state)
        whole = {name: value.clone() for name, value in state.items()}
    else:
        whole = restore_heads(plan, state)
    if layout == 'timm':
        return timm_weights(whole)
    return {ORION_PREFIX + name: value for name, value in whole.items()}


def require_whole(state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if a backbone has fewer rows of q than channels, or blocks of several sizes."""
    sizes = {tuple(value.shape) for key, value in state.items() if key.endswith('attn.q_proj.weight')}
    hidden = {value.shape[0] for key, value in state.items() if key.endswith('mlp.w1.weight')}
    if len(sizes) > 1 or len(hidden) > 1 or any(rows != columns for rows, columns in sizes):
        raise CheckpointError(
            f'Expected a backbone with all of its heads but q has the shapes {sorted(sizes)} and the FFN '
            f'{sorted(hidden)} neurons. Give the plan by which it was pruned (--plan).'
        )
