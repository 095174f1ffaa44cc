"""Levels, adapters and cells of feature maps.

N image, C channel, H W position.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kdplugin.distill.methods import Method, StepContext
from kdplugin.distill.methods.maps import adapted_levels, cells_in_images, counted_cells, map_shapes, mean_over_levels
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import TapError


class Sample(dict):
    """What a data sample says of its size."""

    @property
    def img_shape(self) -> Any:
        return self['img_shape']


def found(*shapes: tuple[int, ...]) -> ProbeResult:
    return ProbeResult('tensor', {'x': list(shapes)}, frozenset())


def context(student: list[torch.Tensor], teacher: list[torch.Tensor], **more: Any) -> StepContext:
    return StepContext({'x': student}, {'x': teacher}, nn.Identity(), None, **more)  # type: ignore[arg-type]


def test_shapes_must_be_maps_and_equally_many() -> None:
    method = Method('p', tap='x')
    shapes = [(1, 4, 8, 8), (1, 4, 4, 4)]
    assert map_shapes(method, found(*shapes), found(*shapes)) == (shapes, shapes)
    message = r"Expected pair 'p' to see as many maps \(N, C, H, W\) on both sides but 'x' gives \["
    for ours, theirs in ((shapes, shapes[:1]), ([(1, 4)], [(1, 4)])):
        with pytest.raises(TapError, match=message):
            map_shapes(method, found(*ours), found(*theirs))


def test_the_student_is_brought_to_the_teacher_level_by_level() -> None:
    torch.manual_seed(0)
    student, teacher = [torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)], [torch.randn(1, 3, 8, 8)] * 2
    adapters = nn.ModuleList([nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)])
    levels = list(adapted_levels(Method('p', tap='x'), context(student, teacher), adapters))
    for level, (ours, theirs) in enumerate(levels):
        assert theirs is teacher[level]
        expected = nn.functional.interpolate(adapters[level](student[level]), size=(8, 8), mode='bilinear')
        torch.testing.assert_close(ours, expected)
    same = list(adapted_levels(Method('p', tap='x'), context(teacher, teacher), None))
    assert all(ours is theirs for ours, theirs in same)


def test_a_cell_counts_if_it_begins_inside_its_image() -> None:
    """As mmdet's valid_flags: the ceiling of 33 / 16 cells in height, of 48 / 16 in width."""
    samples = [Sample(img_shape=(33, 48)), Sample(img_shape=(64, 64))]
    cells = cells_in_images(samples, (64, 64), (2, 4, 4))
    assert cells is not None
    assert cells.sum((1, 2)).tolist() == [3 * 3, 16]
    assert cells[0, :3, :3].all()
    from mmdet.models.task_modules.prior_generators import AnchorGenerator

    anchors = AnchorGenerator(strides=[16], ratios=[1.0], scales=[1.0])
    (flags,) = anchors.valid_flags([(4, 4)], (33, 48), device='cpu')
    assert torch.equal(flags.view(4, 4), cells[0])


def test_all_cells_count_where_nothing_is_padded_or_nobody_knows() -> None:
    whole = [Sample(img_shape=(64, 64, 3))]
    assert cells_in_images(whole, (64, 64), (1, 4, 4)) is None
    assert cells_in_images([Sample()], (64, 64), (1, 4, 4)) is None
    assert cells_in_images(None, (64, 64), (1, 4, 4)) is None
    assert cells_in_images([Sample(img_shape=(8, 8))], None, (1, 4, 4)) is None
    assert counted_cells(context([], []), torch.zeros(1, 2, 4, 4)) is None


def test_labels_and_padding_are_both_left_out() -> None:
    features, labels = torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 4, dtype=torch.long)
    labels[0, 0] = 255
    padded = dict(data_samples=[Sample(img_shape=(32, 48))], image_size=(32, 64))
    by_label = counted_cells(context([], [], labels=labels), features)
    both = counted_cells(context([], [], labels=labels, **padded), features)
    padding = counted_cells(context([], [], **padded), features)
    assert by_label.tolist() == [[[False] * 4, [True] * 4]]
    assert padding.tolist() == [[[True, True, True, False]] * 2]
    assert torch.equal(both, by_label & padding)
    assert counted_cells(context([], [], labels=labels), features, ignore_index=None) is None


def test_mean_over_levels_counts_positions_alike() -> None:
    errors = [torch.full((1, 2, 2), 1.0), torch.full((1, 1, 1), 6.0)]
    assert mean_over_levels(errors, [None, None]).item() == 2
    counted = torch.tensor([[[True, False], [False, False]]])
    assert mean_over_levels(errors, [counted, None]).item() == 3.5
