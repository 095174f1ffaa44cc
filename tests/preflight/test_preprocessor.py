from __future__ import annotations

import re
from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.preprocessor import check_preprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def model(**changes: Any) -> dict[str, Any]:
    return dict(type='GFL', data_preprocessor=dict(mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32, **changes))


@pytest.mark.parametrize('values', [(MEAN, STD), ([127.5], [127.5]), (None, None)])
def test_what_is_right_is_no_finding(values: tuple[Any, Any]) -> None:
    own = dict(mean=values[0], std=values[1])
    assert says(check_preprocessor, dict(model=dict(data_preprocessor=own))) == []
    assert says(check_preprocessor, dict(model=model(), data_preprocessor=model()['data_preprocessor'])) == []
    assert says(check_preprocessor, dict(model=dict(type='GFL'))) == []


@pytest.mark.parametrize(
    ('changes', 'key', 'message'),
    [
        (dict(mean=[1, 2, 3, 4]), 'mean', r'Expected 3 numbers.* but got \[1, 2, 3, 4\]. Correct mean.'),
        (dict(std=['58', '57', '57']), 'std', 'Correct std.'),
        (dict(mean=116.0), 'mean', 'but got 116.0'),
        (dict(std=[58.0]), 'std', 'Expected 3 numbers as in mean but got 1.'),
        (dict(std=None), 'std', 'Expected mean and std together'),
        (dict(rgb_to_bgr=True), 'rgb_to_bgr', 'turn the colours twice.* keep bgr_to_rgb'),
        (dict(pad_size_divisor=0), 'pad_size_divisor', 'Expected a whole number >= 1 but got 0. Give'),
        (dict(pad_size_divisor='32'), 'pad_size_divisor', "but got '32'"),
    ],
)
def test_numbers_that_no_preprocessor_takes(changes: dict[str, Any], key: str, message: str) -> None:
    student = model()
    student['data_preprocessor'].update(changes)
    config = dict(model=dict(type='kdplugin.Distiller', student=student))
    ((level, where, text),) = says(check_preprocessor, config)
    assert (level, where) == ('error', f'model.student.data_preprocessor.{key}')
    assert re.search(message, text)


def test_a_second_one_goes_unread() -> None:
    other = dict(mean=[0, 0, 0], std=[255, 255, 255])
    for place in ('top', 'model'):
        config = dict(model=dict(type='kdplugin.Distiller', student=model()))
        (config if place == 'top' else config['model'])['data_preprocessor'] = other  # type: ignore[index]
        ((level, where, text),) = says(check_preprocessor, config)
        assert (level, where) == ('warning', 'data_preprocessor' if place == 'top' else 'model.data_preprocessor')
        assert 'another at model.student.data_preprocessor, which alone is read. Keep one of them.' in text


def test_as_many_numbers_as_the_backbone_takes_channels() -> None:
    four = dict(mean=[1.0] * 4, std=[2.0] * 4)
    assert says(check_preprocessor, dict(model=dict(backbone=dict(in_channels=4), data_preprocessor=four))) == []
    assert len(says(check_preprocessor, dict(model=dict(backbone=dict(in_channels=5), data_preprocessor=four)))) == 1
    two = dict(type='DualInputSegDataPreProcessor', mean=[1.0] * 6, std=[2.0] * 6)
    assert says(check_preprocessor, dict(model=dict(data_preprocessor=two))) == []
    two['type'] = 'SegDataPreProcessor'
    assert len(says(check_preprocessor, dict(model=dict(data_preprocessor=two)))) == 1


def test_padding_is_no_class() -> None:
    for value, number in ((255, 0), (0, 1)):
        own = dict(type='SegDataPreProcessor', seg_pad_val=value)
        told = says(check_preprocessor, dict(model=dict(data_preprocessor=own)))
        assert [(level, where) for level, where, _ in told] == [
            ('warning', 'model.data_preprocessor.seg_pad_val')
        ] * number
    assert (
        says(check_preprocessor, dict(model=dict(data_preprocessor=dict(type='DetDataPreprocessor', seg_pad_val=0))))
        == []
    )
    depth = dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadDepthAnnotation')])))
    own = dict(type='SegDataPreProcessor', seg_pad_val=0)
    assert says(check_preprocessor, dict(depth, model=dict(data_preprocessor=own))) == []
