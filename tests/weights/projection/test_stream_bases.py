"""When a stream is rotated, and why not."""

from __future__ import annotations

import pytest
from small_nets import Modulated, PostNorm, Vit, same_names
from torch import nn

from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection


def plan_of(source: nn.Module, target: nn.Module, **options: object) -> ProjectionPlan:
    return with_projection(same_names(source.state_dict(), target.state_dict()), source.state_dict(), **options)


def test_pre_norm_streams_are_rotated_and_centred_for_layer_norm() -> None:
    for norm in ('layer', 'rms'):
        group = plan_of(Vit(32, norm=norm), Vit(16, norm=norm)).groups['stream.32']
        assert (group.kind, group.method, group.centred) == ('residual', 'svd', norm == 'layer')


@pytest.mark.parametrize(
    ('wide', 'narrow', 'reason'),
    [
        (PostNorm(32, 4), PostNorm(16, 2), r'layers.0 normalises what it writes, as far as names and order tell'),
        (Modulated(32, 4), Modulated(16, 2), r'blocks.0 attends to another stream'),
    ],
)
def test_other_streams_choose_units(wide: nn.Module, narrow: nn.Module, reason: str) -> None:
    plan = plan_of(wide, narrow, head_dim=8)
    assert (plan.groups['stream.32'].kind, plan.groups['stream.32'].method) == ('hidden', 'svd')
    (note,) = [note for note in plan.notes if note.startswith('stream.32')]
    assert note.startswith(f'stream.32 is not rotated; its units are chosen by energy: {reason}')


def test_a_person_may_know_better() -> None:
    assert plan_of(Vit(32), Vit(16), pre_norm=False).groups['stream.32'].kind == 'hidden'
    plan = plan_of(PostNorm(32, 4), PostNorm(16, 2), pre_norm=True, head_dim=8)
    assert plan.groups['stream.32'].kind == 'residual'


@pytest.mark.parametrize(('wide', 'narrow', 'kind'), [
    (Vit(32), Vit(16), 'residual'), (PostNorm(32, 4), PostNorm(16, 2), 'hidden')])  # fmt: skip
def test_alphabetical_targets_tell_by_their_names(wide: nn.Module, narrow: nn.Module, kind: str) -> None:
    """As safetensors files have it; the order of their tensors says nothing about the order of layers."""
    target = dict(sorted(narrow.state_dict().items()))
    plan = with_projection(same_names(wide.state_dict(), target), wide.state_dict(), head_dim=8)
    assert plan.groups['stream.32'].kind == kind


class Strange(Vit):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mystery = nn.Linear(3, width)


def test_a_writer_of_unknown_role_forbids_it() -> None:
    plan = plan_of(Strange(32), Strange(16))
    assert plan.notes == ('stream.32 is not rotated; its units are chosen by energy: the role of mystery is unknown',)


@pytest.mark.parametrize(
    ('narrow', 'wide', 'wider', 'method'),
    [(16, 32, 'repeat', 'repeat'), (16, 24, 'repeat', 'svd'), (16, 32, 'zero', 'svd')],
)
def test_wider_streams_are_repeated_where_that_is_exact_and_rotated_otherwise(
    narrow: int, wide: int, wider: str, method: str
) -> None:
    assert plan_of(Vit(narrow), Vit(wide), wider=wider).groups[f'stream.{narrow}'].method == method


def test_methods_of_the_other_groups() -> None:
    plan = plan_of(Vit(32, hidden=48), Vit(16, hidden=64), method='average', wider='zero')
    assert plan.groups['blocks.0.mlp.hidden'].method == 'zero'
    assert plan.groups['stream.32'].method == 'average'
    gated = plan_of(Vit(32, hidden=48, gated=True), Vit(16, hidden=64, gated=True), wider='zero')
    note = 'blocks.0.mlp.hidden: a norm sees the zeros that are added, so the function changes (and 1 more of the kind)'
    assert note in gated.notes
