"""Pickles of dicts, lists, numbers, texts and NumPy arrays of them, read without running code from the file.

Nothing of NumPy is called while the file is unpickled: its arrays become stand-ins that only note what the file says,
and are built, from plain numbers and texts alone, when the whole file has been read.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdplugin.errors import DataError

KINDS = re.compile(r'[?b]|[biuf][1248]|U\d{1,5}|S\d{1,5}')
BUILTINS = ('builtins', '__builtin__')
ARRAY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray', 'numpy.core.numeric', 'numpy._core.numeric')


class _Kind:
    """Stands for ``numpy.dtype``; of its state only the byte order counts."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not KINDS.fullmatch(code.lstrip('<>=|')):
            raise pickle.UnpicklingError(f'numpy.dtype({code!r})')
        self.code = code.lstrip('<>=|')
        self.order = code[0] if code[0] in '<>' else '='

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ('<', '>'):
            self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f'{self.order}{self.code}')


class _Array:
    """Stands for an array or a scalar: how it looks, and its bytes."""

    def __init__(self, *_: Any) -> None:
        self.shape: Any = ()
        self.kind: Any = None
        self.fortran: Any = False
        self.content: Any = b''

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def build(self) -> Any:
        shape, content = self.shape, self.content
        if isinstance(content, str):  # protocol 2 writes bytes as text
            content = content.encode('latin1')
        sizes = isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)
        if not isinstance(self.kind, _Kind) or not sizes or not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError('an array of something else than numbers and texts')
        kind = self.kind.dtype()
        if math.prod(shape) * kind.itemsize != len(content):
            raise pickle.UnpicklingError(f'{len(content)} bytes for an array {shape} of {kind}')
        flat = np.frombuffer(bytes(content), kind).astype(kind.newbyteorder('='))
        array = flat.reshape(shape, order='F' if self.fortran else 'C')
        if array.dtype.kind == 'U':  # code points beyond Unicode would crash whoever prints them
            array.tolist()
        return array


def _scalar(kind: Any, content: Any = b'') -> _Array:
    array = _Array()
    array.kind, array.content = kind, content
    return array


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.shape, array.kind, array.fortran, array.content = shape, kind, order == 'F', bytes(content)
    return array


def _encode(text: Any, encoding: Any = 'latin1') -> bytes:
    if not isinstance(text, str) or encoding != 'latin1':
        raise pickle.UnpicklingError(f'_codecs.encode with {encoding!r}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    return b''


def _known() -> dict[tuple[str, str], Callable[..., Any]]:
    arrays: dict[str, Callable[..., Any]] = {'_reconstruct': _Array, 'scalar': _scalar, '_frombuffer': _from_buffer}
    return {
        ('numpy', 'dtype'): _Kind,
        ('numpy', 'ndarray'): _Array,
        ('_codecs', 'encode'): _encode,
        **{(module, 'bytes'): _no_bytes for module in BUILTINS},  # how protocols before 3 write b''
        **{(module, 'bytearray'): bytearray for module in BUILTINS},
        **{(module, name): stand_in for module in ARRAY_MODULES for name, stand_in in arrays.items()},
    }


class _Reader(pickle.Unpickler):
    known = _known()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return self.known[module, name]


def read_plain_pickle(path: str | Path) -> Any:
    """Return what a pickle holds, if that is plain data.

    Args:
        path: of a file as ``pickle.dump`` writes it, of any protocol.

    Raises:
        DataError: the file is missing or damaged, or asks for anything else than data, which could run a program.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f'Expected a pickle but {file} does not exist. Check the path.')
    try:
        return _built(_Reader(io.BytesIO(file.read_bytes())).load())
    except Exception as error:  # a damaged file can raise anything
        raise DataError(
            f'Expected plain data (dicts, lists, numbers, texts, NumPy arrays) in {file} but got {error}. Nothing was '
            'executed. Write the file anew with pickle.dump from such data.'
        ) from None


def _built(value: Any) -> Any:
    """Put arrays in the places of their stand-ins."""
    if isinstance(value, _Array):
        built = value.build()
        return built[()] if built.shape == () else built
    if isinstance(value, dict):
        return {_built(key): _built(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_built(item) for item in value)
    if isinstance(value, _Kind):
        raise pickle.UnpicklingError('numpy.dtype alone')
    return value
