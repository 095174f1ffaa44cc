"""Which axis groups get which method: above all, whether a stream may be rotated."""

from __future__ import annotations

from collections.abc import Sequence

from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.folding import Folds, fold_stream
from kdplugin.weights.projection.layer_slots import Layer
from kdplugin.weights.projection.other_axes import is_modulation
from kdplugin.weights.projection.transformer_blocks import Block

WRITERS = {'embed', 'proj', 'stem', 'patch', 'input', 'down', 'token'}


def settle(
    plan: ProjectionPlan,
    axes: Axes,
    blocks: Sequence[Block],
    outside: Sequence[Layer],
    *,
    method: str,
    wider: str,
    pre_norm: bool | None,
) -> tuple[dict[str, str], Folds]:
    """Return the method of each group, and what has to be folded for streams that are rotated.

    A stream is rotated (method 'svd') where all that touches it is known to be linear or to be a norm that can be
    folded into its readers. Otherwise its units are chosen by energy, which commutes with everything elementwise.
    """
    methods, folds = {}, Folds()
    for name, draft in axes.drafts.items():
        wide = (draft.target_width, draft.queries[1]) > (draft.source_width, draft.queries[0])
        methods[name] = wider if wide else method
        if wide and wider == 'zero' and draft.kind != 'residual' and _is_normed(axes, name):
            axes.notes.append(f'{name}: a norm sees the zeros that are added, so the function changes')
        if draft.truncate:
            methods[name] = 'zero' if wide else 'truncate'
        elif draft.kind == 'residual':
            own = [block for block in blocks if block.widths == (draft.source_width, draft.target_width)]
            uneven = wide and (wider == 'zero' or draft.target_width % draft.source_width)
            if not uneven and (wide or method != 'svd'):
                continue
            reason = _why_not(axes, name, own, outside, pre_norm)
            if reason is None:
                methods[name] = 'svd'
                draft.centred = _is_centred(axes, name, own, outside)
                found = fold_stream(plan, axes, own, outside, name)
                folds.merge(found)
            else:
                draft.kind = 'hidden'
                what = 'widened, which its norms see' if wide else 'not rotated; its units are chosen by energy'
                axes.notes.append(f'{name} is {what}: {reason}')
    return methods, folds


def _why_not(
    axes: Axes, name: str, blocks: Sequence[Block], outside: Sequence[Layer], pre_norm: bool | None
) -> str | None:
    """Return why a stream cannot be rotated, or None."""
    if not blocks:
        return 'no block of it is known'
    for block in blocks:
        if block.crosses:
            return f'{block.path} attends to another stream'
        if pre_norm is False or (pre_norm is None and not block.is_pre_norm):
            return f'{block.path} normalises what it writes, as far as names and order tell (pre_norm=True denies it)'
    first = min(block.sublayers[0].order for block in blocks)
    for layer in outside:
        if _touches(axes, layer, name):
            if is_modulation(layer):
                return f'{layer.path} modulates it'
            if any(layer is one for block in blocks for one in block.others):
                return f'the role of {layer.path} is unknown'
            writes = layer.is_matrix and _place(axes, layer, 0) == name
            stem = layer.inputs[0] == layer.inputs[1] and layer.order < first if writes else False
            if (writes and not stem and not WRITERS & {*layer.words}) or layer.is_scale:
                return f'the role of {layer.path} is unknown'
    return None


def _place(axes: Axes, layer: Layer, dim: int) -> str | None:
    placed = axes.places.get((layer.weight.entry, layer.weight.piece, dim))
    return placed.group if placed else None


def _touches(axes: Axes, layer: Layer, name: str) -> bool:
    slots = layer.tensors.values()
    places = [axes.places.get((slot.entry, slot.piece, dim)) for slot in slots for dim in range(len(slot.old))]
    return any(place is not None and place.group == name for place in places)


def _is_centred(axes: Axes, name: str, blocks: Sequence[Block], outside: Sequence[Layer]) -> bool:
    """Tell whether LayerNorm reads a stream: a norm with a bias, as RMSNorm has none."""
    norms = [norm for block in blocks for norm in block.norms] + [layer for layer in outside if layer.is_norm]
    return any('bias' in norm.tensors and 'mean' not in norm.tensors and _touches(axes, norm, name) for norm in norms)


def _is_normed(axes: Axes, name: str) -> bool:
    """Tell whether a norm over channels, other than BatchNorm, works on a group."""
    return any(one.is_norm and 'mean' not in one.tensors and _touches(axes, one, name) for one in axes.layers)
