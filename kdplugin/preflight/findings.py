"""What a check has to say, and the collector that lets checking go on after a failure."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from kdplugin.errors import ConfigError, DataError, KDPluginError
from kdplugin.module_paths import did_you_mean

Level = Literal['error', 'warning', 'note']
T = TypeVar('T')
EMPTY_DATASET = (
    'Expected images in every dataset but one found none. Check data_prefix, the file suffixes (img_suffix, '
    'seg_map_suffix), the classes, and what filter_cfg leaves.'
)


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know before training.

    Args:
        level: 'error' stops a run or ruins it, 'warning' may, 'note' is for information.
        where: the path in the config, such as 'model.teacher.checkpoint'.
        message: what was expected, what was found, and the cure.
        check: the name of the check that found it.
    """

    level: Level
    where: str
    message: str
    check: str = ''

    @property
    def parts(self) -> Parts:
        return split_message(self.message)


class Parts(NamedTuple):
    """A message "Expected X but got Y. Do Z." taken apart."""

    expected: str
    found: str
    cure: str


def split_message(message: str) -> Parts:
    """Take a message apart; one that is no such sentence is all ``found``.

    Example:
        >>> split_message("Expected a loss but got 'KL'. Did you mean 'KLDivergenceLoss'?")
        Parts(expected='a loss', found="'KL'", cure="Did you mean 'KLDivergenceLoss'?")
    """
    match = re.match(r'Expected (.+?),? but (?:got )?(.+?)\.? (?=[A-Z])(?<=\. )(.+)$', message, re.DOTALL)
    return Parts(*match.groups()) if match else Parts('', message, '')


def explain(error: Exception) -> str:
    """Return a host exception as one line: its type and what it says, or the line of code where it says nothing.

    Example:
        >>> explain(ValueError('bad value.'))
        'ValueError: bad value'
    """
    text = ' '.join(str(error.args[0] if error.args else '').split())
    if isinstance(error, OSError) and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    text = text.rstrip('.') or _origin(error)
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def _origin(error: Exception) -> str:
    """Return the line of code that raised an exception, and its place: "assert depth > 0 (vit.py, line 8)"."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ''
    last = frames[-1]
    line = (last.line or '').rstrip(' \\')
    return f'{line} ({Path(last.filename).name}, line {last.lineno})'


@contextlib.contextmanager
def host_mistakes() -> Iterator[None]:
    """Turn what mmengine raises for common mistakes into sentences.

    Raises:
        ConfigError: instead of a KeyError, for a type that no registry knows; instead of a TypeError, for an argument
            that a type does not take, or lacks.
        DataError: instead of a ValueError from numpy, for a dataset without images.
    """
    try:
        yield
    except KeyError as error:
        if 'registry. Please check' not in str(error):
            raise
        unknown = str(error.args[0]).split('. Please check')[0]
        raise ConfigError(
            f'Expected a registered type but {unknown}. Correct the name, its prefix or default_scope.'
        ) from None
    except TypeError as error:
        if not re.search(r'__init__\(\) (got an unexpected keyword|missing \d+ required)', str(error)):
            raise
        raise ConfigError(f'Expected arguments that the type takes but {error}. Correct its config.') from error
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise DataError(EMPTY_DATASET) from None


class Findings(list[Finding]):
    """The findings of all checks, in the order of the checks.

    ``broken`` holds the names of the checks that stopped with an exception of their own: what they would have looked
    at is unknown. ``unsafe`` says that a type is none that may be built to look at it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.check = ''
        self.broken: list[str] = []
        self.unsafe = False

    def add(self, level: Level, where: str, message: object) -> None:
        """Append a finding unless it is there already, whichever check said it first."""
        if not any((one.level, one.where, one.message) == (level, where, str(message)) for one in self):
            self.append(Finding(level, where, str(message), self.check))

    def error(self, where: str, message: object) -> None:
        self.add('error', where, message)

    def warning(self, where: str, message: object) -> None:
        self.add('warning', where, message)

    def not_among(self, where: str, value: object, known: Sequence[str]) -> None:
        """Add the error that a value is none of some words."""
        near = did_you_mean(str(value), known)
        self.error(where, f'Expected one of {list(known)} but got {value!r}.{near} Choose one.')

    def note(self, where: str, message: object) -> None:
        self.add('note', where, message)

    @contextlib.contextmanager
    def during(self, check: str) -> Iterator[None]:
        """Name the check that findings in the block come from."""
        outer, self.check = self.check, check
        try:
            yield
        finally:
            self.check = outer

    def run(self, check: str, function: Callable[..., T], *args: Any) -> T | None:
        """Run a check by its name; one that stops with an exception is said to be broken, and the others go on."""
        with self.during(check):
            try:
                return function(self, *args)
            except Exception as error:
                self.broken.append(check)
                self.note(check, f'not checked: {check}, because of {explain(error)}.')
        return None

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self if finding.level == 'error']

    def attempt(self, where: str, expected: str, function: Callable[..., T], *args: Any) -> T | None:
        """Return what a function returns; turn what it raises into an error and return None.

        Args:
            where: of the finding.
            expected: finishes "Expected ..." for an exception that is not ours, such as 'the student to build'.
            function: called with ``args``.
        """
        try:
            with host_mistakes():
                return function(*args)
        except KDPluginError as error:
            self.error(where, error)
        except Exception as error:
            self.error(where, f'Expected {expected} but got {explain(error)}. Correct this part of the config.')
        return None
