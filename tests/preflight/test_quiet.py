"""The host is kept from talking within a block, and talks again after it."""

from __future__ import annotations

import logging
import warnings

import pytest
from mmengine.logging import MMLogger

from kdplugin.preflight.quiet import logging_from, quiet


@pytest.mark.parametrize('block', [logging_from, quiet])
def test_the_level_holds_within_the_block_and_comes_back_after_an_error(block: type) -> None:
    logger = MMLogger.get_current_instance()
    before, within = logger.level, []

    def fail() -> None:
        within.append(logger.level)
        raise ValueError('stop')

    with pytest.raises(ValueError, match='stop'), block(logging.CRITICAL):
        fail()
    assert within == [logging.CRITICAL]
    assert logger.level == before != logging.CRITICAL


def test_only_quiet_keeps_warnings() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter('always')
        with quiet(logging.ERROR):
            warnings.warn('within', stacklevel=1)
        with logging_from(logging.ERROR):
            warnings.warn('logged', stacklevel=1)
        warnings.warn('after', stacklevel=1)
    assert [str(one.message) for one in heard] == ['logged', 'after']


def test_what_is_printed_leaves_the_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet(logging.ERROR):
        print('loading annotations into memory...')
    print('{}')
    said = capsys.readouterr()
    assert said.out == '{}\n'
    assert said.err == 'loading annotations into memory...\n'
