"""One training step, looked at closely: losses, gradients, and who is to blame."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.distillation import Distillation, taps_of
from kdplugin.distill.distiller import ADAPTERS
from kdplugin.distill.pairs import Pair
from kdplugin.distill.taps import catch
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.strides import Maps, seen_maps

STEP = 'training step'


@dataclass(frozen=True)
class Step:
    """What one forward pass in loss mode gave.

    Args:
        losses: as the model returns them.
        terms: every trained term as one number, by its name in the log.
        total: their sum.
        overwritten: student taps that an in-place operation changed although the probe saw none.
        maps: what heads with strides worked on, see ``seen_maps``.
        size: (H, W) of the images, None where there are none.
    """

    losses: Mapping[str, Any]
    terms: Mapping[str, float]
    total: Tensor
    overwritten: frozenset[str]
    maps: Maps = field(default_factory=dict)
    size: tuple[int, int] | None = None


def run_step(student: Any, distillation: Distillation | None, data: Any) -> Step:
    """Run a student, distilled or not, on a batch in training mode.

    The engine's own check of the taps stops at the first problem, so it is left out here; ``check_pair_gradient``
    does its work for every pair, and ``check_finite`` that of its guard.
    """
    student.train()
    taps: list[str] = []
    known: frozenset[str] = frozenset()
    if distillation is not None and distillation.student_probe is not None:
        distillation.guard.silent = True
        distillation.checked.update(pair.name for pair in distillation.active)
        taps, known = taps_of(distillation.active, 'student'), distillation.student_probe.overwritten
    with catch(student, taps, 'student') as caught, seen_maps(student) as maps:
        losses = student(**data, mode='loss') if isinstance(data, Mapping) else student(*data, mode='loss')
        overwritten = caught.overwritten() - known
    total, logged = student.parse_losses(losses)
    terms = {name: float(value.detach()) for name, value in logged.items() if 'loss' in name and name != 'loss'}
    images = data.get('inputs') if isinstance(data, Mapping) else None
    size = (images.shape[-2], images.shape[-1]) if isinstance(images, Tensor) else None
    return Step(losses, terms, total, overwritten, maps, size)


def check_finite(found: Findings, step: Step) -> bool:
    """Every loss term is a finite number; True if so."""
    wrong = [f'{name}={value}' for name, value in step.terms.items() if not torch.isfinite(torch.tensor(value))]
    if wrong:
        found.error(
            STEP,
            f'Expected finite losses but got {", ".join(wrong)}. Check the image normalisation, the '
            'labels and the weights at the start.',
        )
    return not wrong


def check_own_losses(found: Findings, step: Step) -> None:
    """What the student computes of its task is trained: mmengine adds that alone whose name contains 'loss'."""
    own = [name for name in step.terms if not name.startswith('loss_kd_')]
    others = [name for name in step.losses if 'loss' not in name and not name.startswith(('kd_', 'acc'))]
    if others and not own:
        found.error(
            STEP,
            f"Expected losses of the student's own, with 'loss' in their names, but got {others[:4]}. The task is not "
            'trained: correct loss_name of the heads, such as loss_ce.',
        )
    wrong = [f'{name}={value:.4g}' for name, value in step.terms.items() if name in own and value < 0]
    if wrong:
        found.warning(
            STEP,
            f'Expected losses of at least 0 but got {", ".join(wrong)}, which would grow without end. Check '
            'loss_weight.',
        )


def check_pair_gradient(found: Findings, student: nn.Module, pair: Pair, step: Step, real: bool = True) -> None:
    """A pair pulls at the student itself, not at its adapter alone.

    Args:
        found: collects the findings.
        student: in which the gradient should arrive.
        pair: whose term is looked at.
        step: with the term.
        real: the images are those of the training; on others a gradient of zero says nothing.
    """
    where, tap = f'model.pairs.{pair.name}', f'student tap {", ".join(map(repr, pair.student_taps))}'
    if step.overwritten & set(pair.student_taps):
        found.error(
            where,
            f'Expected the output of {tap} to stay as it is but an in-place operation overwrites it in training. '
            'Tap the module after it.',
        )
    own = [value for name, value in trained(student).items() if not name.startswith(f'{ADAPTERS}.')]
    term = step.losses[f'loss_kd_{pair.name}']
    near, hidden = nearest_leaves(term, own)
    if not near and not hidden:
        found.error(
            where,
            f'Expected a gradient from {tap} to the student but none arrives, so the pair trains nothing. Unfreeze a '
            'module before the tap, or tap a later one.',
        )
    elif real and not hidden and not (_pulls(term, near) or _pulls(term, own)):
        found.warning(
            where,
            f'Expected a gradient at {tap} but it is zero on this batch. Check that both sides differ at the start, '
            'and that there is something to compare: a softmax over one class is always 1 (write sigmoid=True).',
        )


def _pulls(term: Tensor, leaves: Sequence[Tensor]) -> bool:
    gradients = torch.autograd.grad(term, leaves, retain_graph=True, allow_unused=True)
    return any(gradient.count_nonzero() for gradient in gradients if gradient is not None)


def nearest_leaves(output: Tensor, leaves: Sequence[Tensor], most: int = 8) -> tuple[list[Tensor], bool]:
    """Find the leaves of a graph that are the fewest operations away from an output, without computing anything.

    Args:
        output: of the graph.
        leaves: those that count.
        most: how many to find.

    Returns:
        The nearest leaves, and whether some may be hidden in a segment that is recomputed in the backward pass
        (``torch.utils.checkpoint`` with ``use_reentrant=True``), where nobody can look.
    """
    wanted, hidden = {id(leaf) for leaf in leaves}, False
    found: list[Tensor] = []
    queue: deque[Any] = deque([output.grad_fn])
    seen = {None, output.grad_fn}
    while queue and len(found) < most:
        node = queue.popleft()
        if node is None:
            continue
        if id(getattr(node, 'variable', None)) in wanted:
            found.append(node.variable)
        if node.name() == 'CheckpointFunctionBackward':
            hidden = True
            continue
        following = [next_node for next_node, _ in node.next_functions if next_node not in seen]
        seen.update(following)
        queue.extend(dict.fromkeys(following))
    return found, hidden


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that an optimizer would move, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def check_parameters(found: Findings, student: nn.Module, total: Tensor, ignore_unused: bool) -> None:
    """After ``backward`` every trained parameter has a gradient, without which DistributedDataParallel stops.

    Args:
        found: collects the findings.
        student: whose gradients are looked at.
        total: the loss.
        ignore_unused: the config sets find_unused_parameters.
    """
    if not total.requires_grad:
        found.note(STEP, 'not checked: gradients, because the loss has none.')
        return
    total.backward()
    idle = [name for name, value in trained(student).items() if value.grad is None]
    if idle and not ignore_unused:
        found.warning(
            STEP,
            f'Expected a gradient at every trained parameter but {len(idle)} have none ({", ".join(idle[:4])}'
            f'{", ..." if len(idle) > 4 else ""}). Freeze them or set find_unused_parameters=True: training on '
            'several devices stops otherwise.',
        )


def check_teacher_untouched(found: Findings, teacher: nn.Module) -> None:
    """No gradient reaches the teacher."""
    moved = [name for name, value in teacher.named_parameters() if value.requires_grad or value.grad is not None]
    if moved:
        found.error(
            'model.teacher',
            f'Expected no gradient at the teacher but {moved[:3]} have one. Please report this fault of kdplugin.',
        )


def note_shares(found: Findings, step: Step, distillation: Distillation | None, batch: str) -> None:
    """Say what the total is made of."""
    total = sum(step.terms.values())
    pairs = {f'loss_kd_{pair.name}': pair for pair in distillation.active} if distillation is not None else {}
    found.note(STEP, f'ran on {batch}: total loss {total:.4g}.')
    for name, value in step.terms.items():
        share = f', {100 * value / total:.1f} % of the total' if total > 0 else ''
        pair = pairs.get(name)
        weight, raw = (float(step.losses[f'kd_{pair.name}_{part}']) if pair else 0.0 for part in ('weight', 'raw'))
        product = f' = {weight:g} x {raw:.4g}' if pair else ''
        found.note(STEP, f'{name} {value:.4g}{product}{share}.')
