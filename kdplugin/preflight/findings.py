"""What a check has to say, and the collector that lets checking go on after a failure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kdplugin.errors import ConfigError, DataError, KDPluginError

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
        where: the part of the config, such as 'teacher' or 'pair logits'.
        message: what was expected, what was found, and the cure.
    """

    level: Level
    where: str
    message: str


def explain(error: Exception) -> str:
    """Return a host exception as one line: its type and what it says.

    Example:
        >>> explain(ValueError('bad value.'))
        'ValueError: bad value'
    """
    text = ' '.join(str(error.args[0] if error.args else '').split())
    if isinstance(error, OSError) and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    text = text.rstrip('.')
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


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
    """The findings of all checks, in the order of the checks."""

    def error(self, where: str, message: object) -> None:
        self.append(Finding('error', where, str(message)))

    def warning(self, where: str, message: object) -> None:
        self.append(Finding('warning', where, str(message)))

    def note(self, where: str, message: object) -> None:
        self.append(Finding('note', where, str(message)))

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
