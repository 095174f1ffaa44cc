"""Attention of chosen blocks of a vision transformer, recomputed from queries and keys for chosen tokens and heads.

N image or window, A head, L token, R query token that is compared, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.attention_map import attention_map_divergence
from kdplugin.pruning.plan import PruningPlan
from kdplugin.registry import MODELS

PATH = 'backbone.blocks.{}.attn.qk'
EXAMPLE = 'Tap modules that put out the rotated queries and keys, (N, A, L, D) each.'


@MODELS.register_module()
class AttentionKD(Method):
    """Mean over blocks of KL(teacher || student) between rows of attention, head by head.

    Paper: Wang et al., "MiniLM: Deep Self-Attention Distillation", arXiv 2002.10957. Fused attention never holds its
    map, so the rows softmax(q k^T scale) are computed anew on both sides, for ``queries`` evenly spread tokens of each
    image or window: memory is blocks x N x A x queries x L numbers. A pruned student's heads look at the heads of
    the teacher that they were: the plan says which.

    Args:
        name: of the pair.
        blocks: numbers of the student's blocks.
        teacher_blocks: of the teacher's, where they differ.
        path: of the modules that put out queries and keys, with {} for the block.
        teacher_path: of the teacher's, where it differs.
        plan: file of the ``PruningPlan`` by which the student was made; its heads are those of the teacher.
        heads: instead, the teacher's heads of each of ``blocks``; neither, where both sides have the same heads.
        queries: tokens compared of each image or window; None compares all.
        scale: of the products; by default D^-0.5.

    Raises:
        ConfigError: no blocks, or lists that do not belong together.
        TapError: the modules put out something else, or other heads than those named.
    """

    def __init__(
        self,
        name: str,
        *,
        blocks: Sequence[int],
        teacher_blocks: Sequence[int] | None = None,
        path: str = PATH,
        teacher_path: str | None = None,
        plan: str | None = None,
        heads: Sequence[Sequence[int]] | None = None,
        queries: int | None = 64,
        scale: float | None = None,
    ) -> None:
        theirs = list(blocks if teacher_blocks is None else teacher_blocks)
        if not blocks or len(theirs) != len(blocks):
            raise ConfigError(
                f'Expected a teacher block for each block of pair {name!r} but got {list(blocks)} and {theirs}. Name '
                'at least one, and as many on both sides.'
            )
        if queries is not None and queries < 1:
            raise ConfigError(f'Expected queries >= 1 in pair {name!r} but got {queries}. None compares all tokens.')
        if plan is not None and heads is not None:
            raise ConfigError(f'Expected either plan or heads in pair {name!r} but got both. Keep one of them.')
        super().__init__(name, tap=path)
        self.student_taps = tuple(path.format(block) for block in blocks)
        self.teacher_taps = tuple((teacher_path or path).format(block) for block in theirs)
        self.heads = heads_of_plan(plan, theirs) if plan is not None else heads
        if self.heads is not None and len(self.heads) != len(theirs):
            raise ConfigError(
                f'Expected the heads of each of {len(theirs)} blocks in pair {name!r} but got {len(self.heads)}. Give '
                'one list for each.'
            )
        self.queries, self.scale = queries, scale

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> None:
        for number, (tap, other) in enumerate(zip(self.student_taps, self.teacher_taps, strict=True)):
            ours, theirs = student_probe.shapes[tap], teacher_probe.shapes[other]
            for path, shapes in ((tap, ours), (other, theirs)):
                if len(shapes) != 2 or len(shapes[0]) != 4 or shapes[0] != shapes[1]:
                    raise TapError(
                        f'Expected pair {self.name!r} to see queries and keys but {path!r} gives {shapes}. {EXAMPLE}'
                    )
            chosen = list(range(theirs[0][1]) if self.heads is None else self.heads[number])
            if len(chosen) != ours[0][1] or max(chosen, default=-1) >= theirs[0][1]:
                raise TapError(
                    f'Expected the {ours[0][1]} heads of {tap!r} to look at heads {chosen} of the {theirs[0][1]} of '
                    f'{other!r} in pair {self.name!r}. Give the plan by which the student was pruned.'
                )

    def distance(self, context: StepContext) -> Tensor:
        terms = [attention_map_divergence(*scores, logits=True) for scores in self.compared(context)]
        return torch.stack(terms).mean()

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return scores before the softmax (N, A, R, L) by block, the teacher's of the heads that are looked at."""
        pairs = []
        for number, (tap, other) in enumerate(zip(self.student_taps, self.teacher_taps, strict=True)):
            heads = None if self.heads is None else self.heads[number]
            ours = attention_scores(*context.student_tensors[tap], queries=self.queries, scale=self.scale)
            theirs = attention_scores(
                *context.teacher_tensors[other], queries=self.queries, scale=self.scale, heads=heads
            )
            pairs.append((ours, theirs))
        return pairs


def attention_scores(
    query: Tensor,
    key: Tensor,
    *,
    queries: int | None = None,
    scale: float | None = None,
    heads: Sequence[int] | None = None,
) -> Tensor:
    """Return q k^T scale of evenly spread query tokens, (N, A, R, L).

    Args:
        query: (N, A, L, D).
        key: (N, A, L, D).
        queries: R; None takes all L.
        scale: D^-0.5 by default.
        heads: those to compute; None for all.

    Example:
        >>> import torch
        >>> attention_scores(torch.ones(1, 2, 9, 4), torch.ones(1, 2, 9, 4), queries=3, heads=[1])[0, 0, 0, 0]
        tensor(2.)
    """
    if heads is not None:
        chosen = torch.as_tensor(list(heads), device=query.device)
        query, key = query.index_select(1, chosen), key.index_select(1, chosen)
    length = query.shape[2]
    if queries is not None and queries < length:
        rows = torch.arange(queries, device=query.device) * length // queries
        query = query.index_select(2, rows)
    return query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)


def heads_of_plan(plan: str | Path, blocks: Sequence[int]) -> list[list[int]]:
    """Return which of the teacher's heads a pruning plan keeps in each block.

    Raises:
        ConfigError: the plan has no such block.
    """
    kept = PruningPlan.read(plan).heads
    wrong = [block for block in blocks if block not in range(len(kept))]
    if wrong:
        raise ConfigError(f'Expected blocks 0 to {len(kept) - 1} of the plan {plan} but got {wrong}. Correct blocks.')
    return [list(kept[block]) for block in blocks]
