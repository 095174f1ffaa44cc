"""EVA-ViT built at a pruned size, which a plan or numbers give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdplugin.errors import ConfigError
from kdplugin.models.backbones.eva_sizes import per_block
from kdplugin.models.backbones.eva_vit import EVAViT
from kdplugin.pruning.plan import VERSION, WHAT, PruningPlan
from kdplugin.registry import MODELS

HEAD_DIM = 64
"""Width of a head in every EVA-02."""

Keep = int | float | Sequence[int | float]


@MODELS.register_module()
class EVAViTStudent(EVAViT):
    """``EVAViT`` with fewer heads and neurons, the width of a head and the scale of attention as before.

    What it computes with a plan's slices of the teacher is the teacher's function with the other heads' outputs and
    the other neurons set to zero, except that ``ffn_ln`` normalises over the kept neurons only (docs/pruning.md).
    Of ORION's teacher with 303.4 M parameters, 8 heads leave 253.0 M, 8 heads and half the neurons 152.3 M.

    Args:
        num_heads: kept heads, one number or one for each block; None for the plan's, or all without a plan.
        ffn_keep: kept neurons: a count (int), a part of them (float up to 1.0), or one of these for each block; None
            for the plan's, or all.
        plan: a ``kdplugin.pruning.PruningPlan``: path of its JSON file, or its content.
        embed_dim: see ``EVAViT``; not pruned.
        depth: see ``EVAViT``.
        head_dim: width of a head of the teacher; None for the plan's, or 64.
        mlp_ratio: of the teacher.
        settings: the others of ``EVAViT``, those of the teacher.

    Raises:
        ConfigError: plan and numbers contradict each other, or the teacher's sizes.

    Example:
        >>> student = EVAViTStudent(num_heads=[1, 2, 1], ffn_keep=0.5, embed_dim=48, head_dim=12, depth=3)
        >>> student.blocks[1].attn.q_proj.weight.shape, student.blocks[1].mlp.w1.weight.shape
        (torch.Size([24, 48]), torch.Size([64, 48]))
    """

    def __init__(
        self,
        num_heads: int | Sequence[int] | None = None,
        ffn_keep: Keep | None = None,
        plan: str | Path | Mapping[str, Any] | PruningPlan | None = None,
        embed_dim: int = 1024,
        depth: int = 24,
        head_dim: int | None = None,
        mlp_ratio: float = 8 / 3,
        **settings: Any,
    ) -> None:
        hidden = int(embed_dim * mlp_ratio)
        kept = None if plan is None else read_plan(plan)
        head_dim = head_dim or (HEAD_DIM if kept is None else kept.head_dim)
        if embed_dim % head_dim:
            raise ConfigError(
                f'Expected head_dim that divides embed_dim {embed_dim} but got {head_dim}. '
                "Give the teacher's width of a head."
            )
        teacher = dict(depth=depth, num_heads=embed_dim // head_dim, hidden=hidden, head_dim=head_dim)
        heads = None if num_heads is None else kept_counts(num_heads, depth, teacher['num_heads'], 'num_heads')
        neurons = None if ffn_keep is None else kept_counts(ffn_keep, depth, hidden, 'ffn_keep')
        if kept is not None:
            _require_fit(kept, teacher)
            _require_same(heads, kept.head_counts, 'num_heads')
            _require_same(neurons, kept.neuron_counts, 'ffn_keep')
            heads, neurons = kept.head_counts, kept.neuron_counts
        super().__init__(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=heads or teacher['num_heads'],
            head_dim=head_dim,
            mlp_ratio=mlp_ratio,
            ffn_hidden=neurons,
            **settings,
        )
        self.plan = kept


def read_plan(plan: str | Path | Mapping[str, Any] | PruningPlan) -> PruningPlan:
    """Return a plan from its file, its content or itself."""
    if isinstance(plan, PruningPlan):
        return plan
    if isinstance(plan, Mapping):
        return PruningPlan.from_json(json.dumps({'what': WHAT, 'version': VERSION, **plan}), 'plan=dict(...)')
    return PruningPlan.read(plan)


def kept_counts(keep: Keep, depth: int, total: int, name: str) -> tuple[int, ...]:
    """Return how many units each block keeps; a float is a part of them, rounded.

    Raises:
        ConfigError: blocks are missing, or one would keep none or more than there are.

    Example:
        >>> kept_counts(0.5, 2, 2730, 'ffn_keep'), kept_counts([4, 0.25], 2, 16, 'num_heads')
        ((1365, 1365), (4, 4))
    """
    parts = (keep,) * depth if isinstance(keep, int | float) else tuple(keep)
    counts = per_block([round(part * total) if isinstance(part, float) else part for part in parts], depth, name)
    for block, count in enumerate(counts):
        if count > total:
            raise ConfigError(
                f'Expected {name} of at most {total} but got {parts[block]!r} for block {block}. Keep no more than all.'
            )
    return counts


def _require_fit(plan: PruningPlan, teacher: Mapping[str, int]) -> None:
    for name, value in teacher.items():
        if getattr(plan, name) != value:
            raise ConfigError(
                f'Expected a plan for a teacher with {name} {value} but got one for {name} {getattr(plan, name)}. '
                "Give the plan that was made of this teacher, or that teacher's sizes."
            )


def _require_same(given: tuple[int, ...] | None, planned: tuple[int, ...], name: str) -> None:
    if given is None or given == planned:
        return
    block = next(index for index, counts in enumerate(zip(given, planned, strict=True)) if counts[0] != counts[1])
    raise ConfigError(
        f'Expected {name} as in the plan, {planned[block]} in block {block}, but got {given[block]}. '
        f'Leave {name} to the plan, or give no plan.'
    )
