"""Plans for pairs of layouts whose roles differ more than names and shapes can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from kdplugin.weights.layouts.skeletons import wan_lite_layout
from kdplugin.weights.layouts.wan import StaticWan, block_count
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.projection.axis_groups import with_projection
from kdplugin.weights.projection.layers import choose_layers
from kdplugin.weights.reading.source import open_source

HEAD = 128
"""Width of a head in every size of Wan."""

RANDOM = {
    'text_proj': 'the teacher reads text in the cross-attention of every block; the student adds one mean text vector '
    'to its stream, which no layer of the teacher writes',
    'time_embed': "the teacher's timestep scales and shifts its norms; the student adds it to its stream, which no "
    'layer of the teacher does',
    'conv_in': 'the teacher reads 2 x 2 patches of 16 channels of its VAE; the student 3 x 3 of 4 channels of another',
    'conv_out': 'the teacher writes patches of 2 x 2 of 16 channels of its VAE; the student 4 channels of another',
}
"""Why tensors of WanLiteStudent have no source in Wan, by module."""
DROPPED = {
    'attn2': 'the student has no cross-attention',
    'norm2': 'the student has no cross-attention',
    'scale_shift_table': 'its mean over timesteps is folded into norms and outputs',
    'condition_embedder.time': 'its mean over timesteps is folded into norms and outputs',
    'condition_embedder.text': RANDOM['text_proj'],
    'patch_embedding': RANDOM['conv_in'],
    'proj_out': RANDOM['conv_out'],
}
"""Why tensors of Wan go nowhere."""


def wan_lite_plan(
    source: object,
    target: Mapping[str, Tensor] | None = None,
    *,
    heads: int = 16,
    method: str = 'svd',
    layers: str | Sequence[int] = 'uniform',
) -> ProjectionPlan:
    """Return the plan that starts a WanLiteStudent from a Wan transformer of any size, under either set of names.

    Self-attention and FFN come from the chosen blocks: q from q, k from k, v from v. The teacher's modulation is held
    at its mean over timesteps: shift and scale become the norm's bias and gain, the gate moves into the output layer.
    Its norms of q and k become their gain and a constant scale. The rest is random, for the reasons in ``RANDOM``.

    Args:
        source: whatever ``open_source`` takes.
        target: the student's state dict or layout; its 1024 x 16 form by default.
        heads: the student's heads.
        method, layers: see ``with_projection`` and ``choose_layers``.

    Example:
        >>> from kdplugin.weights.layouts.skeletons import wan_layout
        >>> plan = wan_lite_plan(wan_layout(1536, 8960, 30))
        >>> plan['blocks.15.attn.in_proj_weight'].sources[1]
        'blocks.29.attn1.to_k.weight'
    """
    teacher = StaticWan(open_source(source))
    student = wan_lite_layout() if target is None else target
    width = teacher.shape('patch_embedding.bias')[0]
    chosen = choose_layers(block_count(teacher), block_count(student), layers)
    entries = tuple(_entry(name, tuple(value.shape), chosen) for name, value in student.items())
    used = {name for entry in entries for name in entry.sources}
    plan = ProjectionPlan(
        teacher.name,
        'WanLiteStudent',
        entries,
        unused={name: _why_unused(name, chosen) for name in teacher if name not in used},
        settings={'view': 'static wan', 'layers': list(chosen)},
    )
    counts = {'source': width // HEAD, 'target': heads}
    return with_projection(plan, teacher, method=method, heads=counts, rotary='none', pre_norm=True)


def _entry(name: str, shape: tuple[int, ...], chosen: Sequence[int]) -> Entry:
    module = name.split('.')[0]
    if module in RANDOM:
        return Entry(name, shape, 'random', score=0.0, margin=0.0, reason=RANDOM[module])
    _, number, path = name.split('.', 2)
    block = f'blocks.{chosen[int(number)]}'
    pieces = _pieces(path, block)
    reason = f'layer {chosen[int(number)]} of the teacher'
    return Entry(name, shape, 'projected', pieces, 0 if len(pieces) > 1 else None, reason=reason)


def _pieces(path: str, block: str) -> tuple[Piece, ...]:
    """Return what a tensor of a student's block is made of."""
    leaf = 'bias' if path.endswith('bias') else 'weight'
    if path.startswith('attn.in_proj'):
        return tuple(_attention_piece(block, part, leaf) for part in 'qkv')
    source = {
        'norm1': 'norm1', 'norm2': 'norm3', 'attn.out_proj': 'attn1.to_out.0', 'mlp.0': 'ffn.net.0.proj',
        'mlp.2': 'ffn.net.2',
    }[path.rpartition('.')[0]]  # fmt: skip
    gate = {'attn.out_proj': 'gate1', 'mlp.2': 'gate2'}.get(path.rpartition('.')[0])
    steps = (Step('multiply', {'dim': 0, 'source': f'{block}.{gate}'}),) if gate else ()
    return (Piece(f'{block}.{source}.{leaf}', steps),)


def _attention_piece(block: str, part: str, leaf: str) -> Piece:
    """Return q, k or v; the norms of q and k as their gain and what they do on average."""
    name = f'{block}.attn1.to_{part}'
    if part == 'v':
        return Piece(f'{name}.{leaf}')
    normalise = Step('normalise', {'matrix': f'{name}.weight'})
    gain = Step('multiply', {'dim': 0, 'source': f'{block}.attn1.norm_{part}.weight'})
    return Piece(f'{name}.{leaf}', (normalise, gain))


def _why_unused(name: str, chosen: Sequence[int]) -> str:
    words = name.split('.')
    if words[0] == 'blocks' and int(words[1]) not in chosen:
        return f'layer {words[1]} was not chosen'
    return next((reason for part, reason in DROPPED.items() if part in name), 'nothing in the student has its role')
