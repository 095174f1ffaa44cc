from __future__ import annotations

import re

import pytest

from kdplugin.errors import ConfigError, DataError
from kdplugin.preflight.findings import Finding, Findings, explain, host_mistakes

UNKNOWN = 'ResNett is not in the mmseg::model registry. Please check whether the value of `ResNett` is correct'


def raises(error: Exception) -> None:
    raise error


def test_attempt_returns_what_the_function_returns_and_says_nothing() -> None:
    found = Findings()
    assert found.attempt('student', 'a model', divmod, 7, 2) == (3, 1)
    assert found == []


def test_our_errors_keep_their_message() -> None:
    found = Findings()
    assert found.attempt('teacher', 'a teacher', raises, ConfigError('Expected A but got B. Do C.')) is None
    assert found == [Finding('error', 'teacher', 'Expected A but got B. Do C.')]


def test_errors_of_the_host_become_a_sentence() -> None:
    found = Findings()
    found.attempt('student', 'the student to build', raises, KeyError(UNKNOWN))
    assert found[0].message == (
        'Expected a registered type but ResNett is not in the mmseg::model registry. Correct the name, its prefix or '
        'default_scope.'
    )
    found.attempt('student', 'the student to build', raises, TypeError('no argument depht'))
    assert found[1].message == (
        'Expected the student to build but got TypeError: no argument depht. Correct this part of the config.'
    )


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (KeyError('epoch'), 'KeyError: epoch'),
        (ValueError('two\n  lines.'), 'ValueError: two lines'),
        (
            FileNotFoundError(2, 'No such file or directory', 'a.png'),
            'FileNotFoundError: a.png: No such file or directory',
        ),
        (AssertionError(), 'AssertionError'),
    ],
)
def test_an_exception_is_told_on_one_line(error: Exception, text: str) -> None:
    assert explain(error) == text


def test_an_exception_that_says_nothing_is_told_by_its_line_of_code() -> None:
    def build(depth: int) -> None:
        if depth < 1:
            raise ValueError

    found = Findings()
    found.attempt('student', 'the student to build', build, 0)
    assert re.search(r'but got ValueError: raise ValueError \(test_findings.py, line \d+\). Cor', found[0].message)


def test_errors_are_those_of_that_level() -> None:
    found = Findings()
    found.note('a', 'x')
    found.warning('b', 'y')
    found.error('c', 'z')
    assert [finding.level for finding in found] == ['note', 'warning', 'error']
    assert found.errors == [Finding('error', 'c', 'z')]


def test_only_unknown_types_are_renamed() -> None:
    with (
        pytest.raises(ConfigError, match=r'Expected a registered type but ResNett is not in'),
        host_mistakes(),
    ):
        raises(KeyError(UNKNOWN))
    with pytest.raises(KeyError, match='epoch'), host_mistakes():
        raises(KeyError('epoch'))


@pytest.mark.parametrize('arguments', [dict(max_iter=5), {}])
def test_wrong_arguments_of_a_type_are_renamed(arguments: dict[str, int]) -> None:
    """What a registry raises for ``train_cfg=dict(type='IterBasedTrainLoop', max_iter=5)``."""
    message = r"Expected arguments that the type takes but Loop\.__init__\(\) .* 'max_iters?'\. Correct its config"
    with pytest.raises(ConfigError, match=message), host_mistakes():
        Loop(**arguments)
    with pytest.raises(TypeError, match='unsupported operand'), host_mistakes():
        Loop(None)


class Loop:
    def __init__(self, max_iters: int | None) -> None:
        self.last = max_iters - 1


def test_only_an_empty_dataset_is_renamed() -> None:
    with pytest.raises(DataError, match=r'Expected images in every dataset but one found none'), host_mistakes():
        raises(ValueError('need at least one array to concatenate'))
    with pytest.raises(ValueError, match='lr'), host_mistakes():
        raises(ValueError('lr'))
