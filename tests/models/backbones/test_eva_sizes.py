"""Numbers for all blocks or for each, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdplugin.errors import ConfigError
from kdplugin.models.backbones.eva_sizes import checked_outputs, per_block, width_of_heads, windowed_blocks


def test_one_number_serves_all_blocks() -> None:
    assert per_block(8, 3, 'num_heads') == (8, 8, 8)
    assert per_block([8, 1, 2], 3, 'num_heads') == (8, 1, 2)


def test_windows_leave_each_third_block_global() -> None:
    assert windowed_blocks(None, 7, 16) == {0, 1, 3, 4, 6}
    assert windowed_blocks((), 7, 0) == frozenset()
    assert windowed_blocks([2], 7, 16) == {2}


def test_outputs_end_with_the_last_block() -> None:
    assert checked_outputs(None, 24) == (23,)
    assert checked_outputs((5, 11, 17, 23), 24) == (5, 11, 17, 23)
    assert checked_outputs((0, -1), 3) == (0, 2)


def test_width_of_a_head() -> None:
    assert width_of_heads(1024, 16) == 64


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: per_block(0, 3, 'num_heads'), 'num_heads of at least 1 but got 0 for block 0. Keep one'),
        (lambda: per_block([1, True], 2, 'num_heads'), 'at least 1 but got True for block 1'),
        (lambda: per_block([1, 1.5], 2, 'num_heads'), 'at least 1 but got 1.5 for block 1'),
        (lambda: per_block([], 2, 'num_heads'), 'for each of 2 blocks but got 0 values. Give 2'),
        (lambda: width_of_heads(10, 0), 'divides embed_dim 10 but got 0'),
        (lambda: windowed_blocks(None, 3, 0), r'window_size of at least 1 for blocks \[0, 1\] but got 0. Set window_'),
        (lambda: windowed_blocks([-1], 3, 4), 'window_block_indexes from 0 to 2 but got -1. Name blocks'),
        (lambda: checked_outputs((), 3), r'up to the last block 2 but got \(\). Set depth'),
        (lambda: checked_outputs((2, 1), 3), r'up to the last block 2 but got \(2, 1\)'),
        (lambda: checked_outputs((1, 3), 3), r'up to the last block 2 but got \(1, 3\)'),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
