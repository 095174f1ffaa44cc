from __future__ import annotations

import pytest

from kdplugin.reports.opening import PairLine, ParameterCounts, TeacherMatch, opening_report

MATCH = TeacherMatch('work_dirs/teacher/best_mIoU_iter_2000.pth', 'ab' * 32, 60, 120, 300, 400)
OTHER = TeacherMatch('other.pth', 'cd' * 32, 5, 5, 11_200_000, 11_200_000, 'other')
COUNTS = ParameterCounts(trainable=1_200_300, frozen=700, adapters=4096)
PAIRS = [
    PairLine('logits', 'decode_head.conv_seg', 'decode_head.conv_seg', 'KLDivergenceLoss', 0.5),
    PairLine('low', 'backbone.layers.3', 'backbone.layer1', 'CosineLoss', '0 to 0.3', '24x20x20 -> 64x40x40'),
]


def test_every_fact_is_in_the_block() -> None:
    text = opening_report([MATCH, OTHER], COUNTS, PAIRS)
    for fact in (
        'work_dirs/teacher/best_mIoU_iter_2000.pth', 'sha256 ' + 'ab' * 32, '60 of 120 tensors (50.0 %)',
        '300 of 400 parameters (75.0 %)', '11,200,000 (11.20 M) parameters, frozen',
        'teacher     work', 'other       other.pth', 'cd' * 32,
        '1,200,300 (1.20 M) trainable', '700 frozen', 'adapters 4,096',
        'KLDivergenceLoss', '0.5', '0 to 0.3', '24x20x20 -> 64x40x40',
    ):  # fmt: skip
        assert fact in text


def test_a_tap_that_both_sides_share_is_written_once_and_two_are_told_apart() -> None:
    text = opening_report([MATCH], COUNTS, PAIRS)
    assert text.count('decode_head.conv_seg') == 1
    assert text.index('backbone.layers.3') < text.index('<- backbone.layer1')


def test_of_several_teachers_each_pair_says_whose_layers_it_looks_at() -> None:
    pairs = [
        PairLine('a', 'neck', 'neck', 'CWDLoss', 1, teacher='big'),
        PairLine('b', 'x', 'y', 'CWDLoss', 1, '', 'wide'),
    ]
    text = opening_report([MATCH, OTHER], COUNTS, pairs)
    assert 'neck (big)' in text
    assert '<- y (wide)' in text


def test_no_line_is_wider_than_a_log_wants() -> None:
    long = PairLine('a_long_pair_name', 'backbone.' + 'deep.' * 20, 'neck', 'CosineLoss', '0 to 1 over 500 steps')
    text = opening_report([MATCH], COUNTS, [*PAIRS, long])
    assert max(len(line) for line in text.splitlines()) <= 100
    assert ''.join(text.split()).count('deep.') >= 1


def test_without_pairs_the_block_says_that_nothing_is_distilled() -> None:
    text = opening_report([], ParameterCounts(10, 0, 0), [])
    assert 'not run' in text
    assert 'exactly as the plain config' in text
    assert 'sha256' not in text


@pytest.mark.parametrize('whole', [0])
def test_an_empty_teacher_is_no_division_by_zero(whole: int) -> None:
    assert '0 of 0 tensors (0.0 %)' in opening_report([TeacherMatch('a', 'b', 0, whole, 0, whole)], COUNTS, [])
