from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from kdplugin.distill.teachers.preprocessing import Preprocessing
from kdplugin.reports.distillation_pictures import MAX_LEVELS, draw_pair, shown_image
from kdplugin.reports.seen_pairs import SeenLevel
from kdplugin.weights.reading.io import write_figure

IMAGE = np.random.default_rng(0).random((30, 40, 3), dtype=np.float32)
NUMBERS: dict[str, float | None] = {'relative error': 0.25, 'cosine': 0.9, 'energy error': 0.1}


def level(title: str = '', size: tuple[int, int] = (6, 8)) -> SeenLevel:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(*size, generator=generator) + 0.5 for _ in range(2)]
    return SeenLevel(title, maps[0], maps[1], ((128, *size), (128, *size)), NUMBERS)


def attended() -> SeenLevel:
    one = level('backbone.blocks.2.attn.qk\nquery 1, 2: the largest KL')
    numbers: dict[str, float | None] = {'relative error': 0.25, 'KL': 0.5}
    return SeenLevel(
        one.title, one.student, one.teacher, ((3, 9, 9), (3, 9, 9)), numbers, (0.2, 0.9, 0.4), (5, 1, 7), (0.25, 0.5)
    )


def texts_that_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Return the titles and labels that are drawn on each other or over the edge."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = [figure._suptitle] if figure._suptitle else []  # type: ignore[attr-defined]
    for axis in figure.findobj(lambda artist: hasattr(artist, 'get_title') and hasattr(artist, 'xaxis')):
        found += [axis.title, axis.xaxis.label, axis.yaxis.label]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text()]
    width, _ = figure.canvas.get_width_height()
    outside = [(text, 'edge') for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1]
    return outside + [(one[0], two[0]) for one, two in combinations(boxes, 2) if one[1].overlaps(two[1])]


def test_a_row_is_image_teacher_student_and_difference() -> None:
    one = level()
    image, teacher, student, difference = draw_pair([one], IMAGE, 'title').axes[:4]
    assert np.array_equal(image.images[0].get_array(), IMAGE)
    assert np.allclose(teacher.images[0].get_array(), one.teacher)
    assert np.allclose(student.images[0].get_array(), one.student)
    assert np.allclose(difference.images[0].get_array(), one.student - one.teacher)
    assert [axis.get_title() for axis in (image, teacher, student, difference)] == [
        'image', 'teacher\n128 channels x 6 x 8', 'student\n128 channels x 6 x 8',
        'student - teacher\nrelative error 0.250, cosine 0.900',
    ]  # fmt: skip


def test_teacher_and_student_share_a_scale_and_the_difference_is_white_at_0() -> None:
    one = level()
    one.student[0, 0] = 1000.0  # one hot cell
    _, teacher, student, difference = draw_pair([one], IMAGE, 'title').axes[:4]
    limits = teacher.images[0].get_clim()
    assert limits == student.images[0].get_clim()
    assert limits[0] == 0
    low, high = difference.images[0].get_clim()
    assert low == -high
    many = level(size=(30, 30))
    many.student[0, 0] = 1000.0
    assert draw_pair([many], IMAGE, 'title').axes[1].images[0].get_clim()[1] < 2


def test_equal_sides_are_not_blown_up_and_damaged_ones_are_drawn() -> None:
    one = level()
    same = SeenLevel('', one.teacher, one.teacher, one.shapes, NUMBERS)
    assert draw_pair([same], IMAGE, 'title').axes[3].images[0].get_clim() == (-0.1, 0.1)
    lost = SeenLevel('', torch.full((6, 8), torch.nan), one.teacher * torch.nan, one.shapes, dict.fromkeys(NUMBERS))
    assert draw_pair([lost], IMAGE, 'title').axes[1].images[0].get_clim() == (0, 0.1)


def test_attention_has_bars_by_head_and_the_query_in_the_image() -> None:
    image, teacher, _, _, bars = draw_pair([attended()], IMAGE, 'title').axes[:5]
    assert image.get_title() == 'backbone.blocks.2.attn.qk\nquery 1, 2: the largest KL'
    assert teacher.get_title() == 'teacher\nmean of 3 heads'
    ((x, y),) = image.collections[0].get_offsets()
    assert (x, y) == (0.5 * 40 - 0.5, 0.25 * 30 - 0.5)
    assert [bar.get_width() for bar in bars.patches] == [0.2, 0.9, 0.4]
    assert [label.get_text() for label in bars.get_yticklabels()] == ['5', '1', '7']


@pytest.mark.parametrize('kind', ['one', 'levels', 'attention', 'strips'])
def test_no_text_is_drawn_on_another(kind: str) -> None:
    levels = {
        'one': [level()],
        'levels': [level(f'level {number} of 5', (2**number, 2**number)) for number in (1, 3, 5)],
        'attention': [attended()] * 3,
        'strips': [level('level 1 of 2', (1, 100)), level('level 2 of 2', (1, 4))],
    }[kind]
    title = "000123.jpg, pair 'features_mid' (CosineLoss): student backbone.features.8, teacher backbone.layer3\nsecond"
    figure = draw_pair(levels, IMAGE, title)
    assert texts_that_overlap(figure) == []
    figure.suptitle('x' * 400)
    assert texts_that_overlap(figure) != []


def test_many_levels_are_cut_and_the_title_says_so() -> None:
    figure = draw_pair([level(str(number)) for number in range(MAX_LEVELS + 3)], IMAGE, 'title')
    assert figure.get_suptitle() == f'title\nthe first {MAX_LEVELS} of {MAX_LEVELS + 3} levels'
    assert sum(axis.get_title().startswith('teacher') for axis in figure.axes) == MAX_LEVELS


def test_maps_of_other_sizes_have_no_difference() -> None:
    one, two = level(size=(3, 3)), level(size=(6, 6))
    figure = draw_pair([SeenLevel('', one.student, two.teacher, ((1, 3, 3), (1, 6, 6)), {})], IMAGE, 'title')
    assert figure.axes[3].texts[0].get_text() == 'no difference:\nother sizes'


def test_an_image_is_shown_as_it_was_before_it_was_preprocessed() -> None:
    raw = torch.randint(0, 256, (3, 5, 7)).float()  # BGR, as mmcv reads
    mean, std = torch.tensor([123.7, 116.3, 103.5]).view(-1, 1, 1), torch.tensor([58.4, 57.1, 57.4]).view(-1, 1, 1)
    padded = torch.nn.functional.pad((raw.flip(0) - mean) / std, (0, 3, 0, 2))
    settings = Preprocessing((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), channel_conversion=True)
    shown = shown_image(padded, settings, (5, 7))
    np.testing.assert_allclose(shown, raw.flip(0).permute(1, 2, 0) / 255, atol=1e-5)
    as_read = shown_image(raw, Preprocessing(), None)
    np.testing.assert_allclose(as_read, raw.flip(0).permute(1, 2, 0) / 255, atol=1e-5)
    assert shown_image(raw[:1], Preprocessing(), None).shape == (5, 7, 3)


def test_it_is_written(tmp_path: Path) -> None:
    write_figure(draw_pair([level()], IMAGE, 'title'), tmp_path / 'pair.png')
    with Image.open(tmp_path / 'pair.png') as picture:
        assert picture.format == 'PNG'
        assert picture.width > 1000
