from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdplugin.weights.reading.damage import pickle_damage, refusal, safetensors_damage


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('Unsupported global: GLOBAL os.system was not an allowed global by default.', r'\(os\.system\)'),
        (
            'Weights only load failed.\nWeightsUnpickler error: Trying to call reduce\nmore',
            r'\(Trying to call reduce\)',
        ),
        ('x' * 500, r'\(x{200}\)'),
    ],
)
def test_a_refusal_names_what_was_asked_for(text: str, reason: str) -> None:
    message = (
        rf'^Expected plain tensors but a\.pth asks for more .*{reason}\. Nothing was executed\..*trust_checkpoint=True'
    )
    assert re.search(message, str(refusal(Exception(text), 'a.pth')))


@pytest.mark.parametrize(
    ('error', 'head', 'message'),
    [
        (EOFError(), b'PK', r'^Expected a checkpoint but a\.pth is damaged .*\(it ends too early\)\. Copy it again'),
        (ValueError('bad'), b'PK', r'\(ValueError: bad\)\. Copy'),
        (ValueError('bad'), b'hello', r"\(it begins with b'hello'\)\. Copy"),
        (RuntimeError('is a TorchScript archive'), b'PK', r'got a TorchScript program\. Save model\.state_dict\(\)'),
        (
            RuntimeError('unable to mmap 9 bytes'),
            b'PK',
            r'^Expected room to map a\.pth .*unable to mmap 9.*in shards\.$',
        ),
    ],
)
def test_damage_of_a_pickle(error: Exception, head: bytes, message: str) -> None:
    assert re.search(message, str(pickle_damage(error, head, 'a.pth')))


@pytest.mark.parametrize(
    ('content', 'error', 'message'),
    [
        (
            b'\x10\0\0\0\0\0\0\0{}',
            'incomplete',
            r'^Expected a safetensors file but .*a is damaged \(incomplete\)\. Copy it',
        ),
        (b'version https://git-lfs', 'x', r"\(it begins with b'version https://'\)\. Copy it again from its source\.$"),
        (b'', 'empty', r'\(empty\)'),
        (
            b'',
            'unable to mmap 9 bytes',
            r'^Expected room to map .*a but the system refused it \(unable to mmap 9 bytes\)',
        ),
    ],
)
def test_damage_of_safetensors(tmp_path: Path, content: bytes, error: str, message: str) -> None:
    (tmp_path / 'a').write_bytes(content)
    assert re.search(message, str(safetensors_damage(Exception(error), tmp_path / 'a')))
