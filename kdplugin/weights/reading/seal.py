"""A checksum inside a checkpoint: the sha256 of a zip file, kept as the comment that ends it.

A checksum in the file cannot be lost or left behind by a copy, and is there the moment the file gets its name; a second
file beside it would be neither. Zip files may end in a comment (PKWARE APPNOTE, section 4.3.16), so ``torch.load``
reads a sealed file as any other, with this package or without. It is needed because PyTorch builds its zip reader
without CRC checks: a flipped bit in a weight loads silently.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

from kdplugin.errors import CheckpointError

MARK = b'kdplugin sha256 '
LENGTH = len(MARK) + 64
"""Bytes of the comment: the mark, then 64 hexadecimal digits."""
END = b'PK\x05\x06'
END_SIZE = 22
"""Bytes of a zip file's end record, whose last two say how long the comment is."""
CHUNK = 1 << 20


def seal(content: bytes | memoryview) -> tuple[bytes | memoryview, bytes]:
    """Return the parts of which the sealed file is made; what is no zip file without a comment comes back as it is.

    Example:
        >>> import io, torch
        >>> file = io.BytesIO()
        >>> torch.save({'w': torch.ones(2)}, file)
        >>> sealed = io.BytesIO(b''.join(seal(file.getvalue())))
        >>> torch.load(sealed, weights_only=True)
        {'w': tensor([1., 1.])}
    """
    view = memoryview(content)
    if bytes(view[:2]) != b'PK' or bytes(view[-END_SIZE:][:4]) != END or bytes(view[-2:]) != b'\0\0':
        return content, b''
    length = struct.pack('<H', LENGTH)
    digest = hashlib.sha256(view[:-2])
    digest.update(length + MARK)
    return view[:-2], length + MARK + digest.hexdigest().encode()


def check_seal(path: str | Path) -> bool:
    """Tell whether a file is sealed and whole; False is a file without a seal, from an older version or another tool.

    Raises:
        CheckpointError: the file is not what was sealed.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        if file.read(2) != b'PK':
            return False
        comment = _comment(file, size, str(path))
        if not comment:
            return False
        if len(comment) != LENGTH or not comment.startswith(MARK):
            raise _damage(path, 'the checksum at its end is cut or overwritten')
        if _digest(file, size - 64) != comment[len(MARK) :].decode(errors='replace'):
            raise _damage(path, 'its bytes do not have the checksum that was written with them')
    return True


def _comment(file: BinaryIO, size: int, name: str) -> bytes:
    """Return the comment of a zip file; empty too where the end record is gone, which torch refuses to read."""
    file.seek(max(size - END_SIZE - LENGTH, 0))
    tail = file.read()
    place = tail.rfind(END)
    if place < 0 or len(tail) < place + END_SIZE:
        if MARK in tail:
            raise _damage(name, 'its end record is overwritten')
        return b''
    (said,) = struct.unpack('<H', tail[place + END_SIZE - 2 : place + END_SIZE])
    comment = tail[place + END_SIZE :]
    if said != len(comment):
        raise _damage(name, 'it ends too early or too late')
    return comment


def _digest(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(length, CHUNK))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _damage(path: str | Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f'Expected a whole checkpoint but {path} is damaged ({reason}). Copy it again from its source, or take an '
        'earlier one.'
    )
