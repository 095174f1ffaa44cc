"""What every tool does around its one library call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from kdplugin.errors import KDPluginError


def run_tool(body: Callable[[], int]) -> int:
    """Run a tool's body and turn a user's mistake into one line on stderr and exit code 1.

    A ``KDPluginError`` is printed as it is, a file that the system refuses (no permission, a folder where a
    file should be) as the same kind of sentence. Ctrl-C gives exit code 130, a reader that leaves (``| head``) 141.
    Anything else is a bug and keeps its traceback.

    Args:
        body: does the work and returns the exit code.

    Example:
        >>> def main(argv: list[str] | None = None) -> int:
        ...     args = parse_arguments(argv)
        ...     return run_tool(lambda: show(args))
    """
    try:
        code = body()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return 141
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except KDPluginError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        message = (
            f'Expected to read or write {error.filename} but got "{error.strerror}". '
            'Check the path and its permissions, or choose another one.'
        )
    print(f'error: {message}', file=sys.stderr)
    return 1
