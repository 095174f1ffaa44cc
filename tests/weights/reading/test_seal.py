"""A sealed checkpoint is a plain one, and every change of it is noticed."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.seal import LENGTH, MARK, check_seal, seal

CONTENT = {'state_dict': {'a': torch.arange(30.0), 'b': torch.zeros(3, dtype=torch.int64)}, 'optimizer': {}}


def saved(content: Any = CONTENT) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / 'iter_1.pth'
    path.write_bytes(b''.join(seal(saved())))
    return path


@pytest.mark.parametrize('options', [{}, {'mmap': True}])
def test_torch_reads_it_as_any_other(sealed: Path, options: dict[str, bool]) -> None:
    content = torch.load(sealed, weights_only=True, **options)
    assert torch.equal(content['state_dict']['a'], CONTENT['state_dict']['a'])
    assert torch.equal(read_checkpoint(sealed, **options)['state_dict']['b'], CONTENT['state_dict']['b'])
    assert zipfile.ZipFile(sealed).testzip() is None
    assert check_seal(sealed)


def test_nothing_but_the_comment_is_new(sealed: Path) -> None:
    plain = saved()
    assert sealed.read_bytes()[: len(plain) - 2] == plain[:-2]
    assert sealed.stat().st_size == len(plain) + LENGTH


def test_a_copy_under_another_name_is_sealed_too(sealed: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'elsewhere.pth'
    copy.write_bytes(sealed.read_bytes())
    assert check_seal(copy)


@pytest.mark.parametrize('content', [b'', b'first', b'PK', saved()[:-1], b'\x80\x02}.', seal(saved())[0]])
def test_what_is_no_plain_zip_file_is_written_as_it_is(content: bytes) -> None:
    assert seal(content) == (content, b'')


def test_a_sealed_file_is_not_sealed_twice(sealed: Path) -> None:
    assert seal(sealed.read_bytes())[1] == b''


def test_files_of_other_tools_have_no_seal(tmp_path: Path) -> None:
    path = tmp_path / 'plain.pth'
    for content in (saved(), b'', b'PK', b'\x80\x02}.', b'text'):
        path.write_bytes(content)
        assert not check_seal(path)


def test_every_flipped_bit_is_noticed(sealed: Path, tmp_path: Path) -> None:
    """One here and there, and one of each of the last 102 bytes, where zip file and checksum end."""
    whole = sealed.read_bytes()
    draw = random.Random(0)  # noqa: S311
    places = [*range(0, len(whole) - 102, 31), *range(len(whole) - 102, len(whole))]
    flips = [(place, 1 << draw.randrange(8)) for place in places]
    path = tmp_path / 'flipped.pth'
    for place, mask in flips:
        changed = bytearray(whole)
        changed[place] ^= mask
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r'flipped\.pth is damaged'):
            read_checkpoint(path)


def test_every_truncation_is_noticed(sealed: Path, tmp_path: Path) -> None:
    """Also within the comment, where torch notices nothing."""
    whole = sealed.read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(whole[: -len(MARK)])
    assert 'state_dict' in torch.load(path, weights_only=True)
    for length in [*range(0, len(whole) - 102, 31), *range(len(whole) - 102, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r'cut\.pth is damaged'):
            read_checkpoint(path)
    path.write_bytes(whole + b'\0')
    with pytest.raises(CheckpointError, match=r'cut\.pth is damaged'):
        read_checkpoint(path)


def test_a_flipped_bit_in_a_weight_loads_silently_without_a_seal(tmp_path: Path) -> None:
    """Why there is a seal at all."""
    content = bytearray(saved())
    place = content.index(torch.arange(30.0).numpy().tobytes())
    content[place + 6] ^= 1
    path = tmp_path / 'plain.pth'
    path.write_bytes(content)
    assert not torch.equal(read_checkpoint(path)['state_dict']['a'], CONTENT['state_dict']['a'])


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda whole: whole[:100] + b'\xff' + whole[101:], 'do not have the checksum that was written with them'),
        (lambda whole: whole[:-1] + b'\xff', 'do not have the checksum that was written with them'),
        (lambda whole: whole[:-LENGTH] + b'x' * LENGTH, 'checksum at its end is cut or overwritten'),
        (lambda whole: whole[:-1], 'ends too early or too late'),
        (lambda whole: whole[: -LENGTH - 22] + b'x' + whole[-LENGTH - 21 :], 'end record is overwritten'),
    ],
)
def test_what_is_wrong_is_said(sealed: Path, change: Any, reason: str) -> None:
    sealed.write_bytes(change(sealed.read_bytes()))
    message = rf'Expected a whole checkpoint but .*iter_1\.pth is damaged \(.*{reason}\)\. Copy it again'
    with pytest.raises(CheckpointError, match=message):
        check_seal(sealed)
