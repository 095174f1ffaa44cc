"""Importance by how sharply a head looks: one less the entropy of its attention."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdplugin.errors import ConfigError
from kdplugin.pruning.blocks import HEADS, Blocks
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.statistics import real_tokens
from kdplugin.weights.mapping.execution import untouched

ROWS = 1 << 24
"""Attention weights that are computed at once, in numbers."""


def entropy_scores(calibration: Calibration, unit: str) -> Tensor:
    """Return 1 - H / log(keys) [L, A]: H is the entropy of a head's attention, meaned over queries, images and windows.

    Low entropy is important. A head that spreads evenly over its keys hands on their mean, which is the same for every
    query: a bias could nearly replace it. A head that looks at a few keys moves content from place to place, which
    nothing else in the block does (confident heads in Voita et al., ACL 2019). By log(keys), windows of 256 tokens and
    whole maps compare. It is a guess about heads in general: it sees neither what a head writes nor the task.

    Attention is that of ``torch.nn.functional.scaled_dot_product_attention`` in each block, positions included.

    Args:
        calibration: with batches.
        unit: 'heads'; neurons do not attend.

    Raises:
        ConfigError: the unit is 'neurons', or a block's attention does not call that function once a pass.
    """
    blocks = calibration.blocks
    units = blocks.sizes.units(unit)
    if unit != HEADS:
        raise ConfigError(
            f"Expected unit='heads' for attention entropy but got {unit!r}. Score neurons with another one."
        )
    sums, calls = torch.zeros(len(blocks), units, dtype=torch.float64), torch.zeros(len(blocks), 1, dtype=torch.float64)

    def see(block: int, real: Tensor, queries: Tensor, keys: Tensor, scale: float | None, mask: Tensor | None) -> None:
        found = attention_entropy(queries, keys, scale=scale, mask=mask, real=real)
        sums[block] += found.double().cpu() / math.log(max(keys.shape[-2], 2))
        calls[block] += 1

    with untouched(calibration.model), _watched(blocks, see):
        for batch in calibration.walk('entropy of heads'):
            calibration.run(calibration.model, batch)
    wrong = [block for block in range(len(blocks)) if not calls[block]]
    if wrong:
        raise ConfigError(
            f'Expected the attention of block {wrong[0]} to call scaled_dot_product_attention but it did not. '
            'Use a model whose blocks do, or another scorer.'
        )
    return 1 - sums / calls


def attention_entropy(
    queries: Tensor,
    keys: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Return the entropy of softmax(q k^T * scale) by head [A], in nats, meaned over images and queries.

    Args:
        queries: [N, A, L, d].
        keys: [N, A, K, d].
        scale: d^-0.5 by default.
        mask: added to the scores, or of booleans where True takes part, as in ``scaled_dot_product_attention``.
        real: [N, L], the queries that count; by default all.

    Example:
        >>> float(attention_entropy(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 8, 4))) == math.log(8)
        True
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    total = torch.zeros(queries.shape[1], device=queries.device)
    step = max(1, ROWS // max(1, queries[0].shape[:-1].numel() * keys.shape[-2]))
    for begin in range(0, len(queries), step):
        scores = queries[begin : begin + step].float() @ keys[begin : begin + step].float().transpose(-2, -1) * scale
        if mask is not None:
            part = mask[begin : begin + step] if mask.ndim == 4 and len(mask) > 1 else mask
            scores = scores.masked_fill(~part, float('-inf')) if part.dtype == torch.bool else scores + part
        logs = scores.log_softmax(-1)
        entropy = -(logs.exp() * logs.nan_to_num(neginf=0)).sum(-1)
        total += (entropy if real is None else entropy * real[begin : begin + step, None]).sum((0, 2))
    return total / (len(queries) * queries.shape[-2] if real is None else real.sum())


class _SeesAttention(TorchFunctionMode):
    """Hand the arguments of each call of ``scaled_dot_product_attention`` on."""

    def __init__(self, see: Callable[..., None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            named = {**dict(zip(('query', 'key', 'value', 'attn_mask'), args, strict=False)), **given}
            self.see(named['query'], named['key'], named.get('scale'), named.get('attn_mask'))
        return func(*args, **given)


@contextlib.contextmanager
def _watched(blocks: Blocks, see: Callable[..., None]) -> Iterator[None]:
    """Call ``see(block, real, queries, keys, scale, mask)`` for every attention inside a block."""
    current: list[tuple[int, Tensor]] = []

    def enter(block: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            current.append((block, real_tokens(inputs[0]).flatten(1)))

        return hook

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        current.pop()

    def inside(*arguments: Any) -> None:
        if current:
            see(*current[-1], *arguments)

    with contextlib.ExitStack() as stack:
        for block in range(len(blocks)):
            attention = blocks[block, 'attn']
            stack.callback(attention.register_forward_pre_hook(enter(block)).remove)
            stack.callback(attention.register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(_SeesAttention(inside))
        yield
