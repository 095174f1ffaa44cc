"""Pickles are read as data: what NumPy wrote comes back, and nothing is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdplugin.datasets.plain_pickle import read_plain_pickle
from kdplugin.errors import DataError

CONTENT = [
    {
        'folder': 'v1/Ünï',
        'sensors': {'CAM_FRONT': {'intrinsic': np.eye(3), 'big': np.arange(6, dtype='>i4').reshape(2, 3)}},
        'boxes': np.asfortranarray(np.arange(18.0).reshape(2, 9)),
        'names': np.array(['walker.pedestrian.0004', 'ü']),
        'bytes': np.array([b'a', b'bc']),
        'empty': np.zeros((0, 9)),
        'half': np.float16(0.5),
        'scalar': np.float64(2.5),
        'flag': np.array([True, False]),
        'numbers': (1, 2.5, None, True, b'raw', b'', 'text'),
    }
]


def write(path: Path, content: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_comes_back_from_every_protocol(protocol: int, tmp_path: Path) -> None:
    (found,) = read_plain_pickle(write(tmp_path / 'a.pkl', CONTENT, protocol))
    (expected,) = CONTENT
    assert found.keys() == expected.keys()
    for key in ('boxes', 'names', 'bytes', 'empty', 'flag'):
        np.testing.assert_array_equal(found[key], expected[key])
        assert found[key].dtype == expected[key].dtype
    for key in ('intrinsic', 'big'):
        np.testing.assert_array_equal(found['sensors']['CAM_FRONT'][key], expected['sensors']['CAM_FRONT'][key])
    assert (found['half'], found['scalar']) == (0.5, 2.5)
    assert (found['folder'], found['numbers']) == (expected['folder'], expected['numbers'])
    found['boxes'][0, 0] = 5.0  # no view of the file's bytes


def test_nothing_is_run(bomb: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'got posix.system. Nothing was executed'):
        read_plain_pickle(write(tmp_path / 'a.pkl', [bomb]))
    assert not bomb.marker.exists()


class Reduced:
    """Pickles as a call."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    'content',
    [
        np.array([object()]), Reduced(np.dtype, 'O'), Reduced(np.dtype, 'V8'), [np.dtype('f8')],
        Reduced(eval, '1'), Reduced(np.load, 'x'), Reduced(getattr, 1, 'real'),
    ],
    ids=['objects', 'object type', 'void', 'type alone', 'eval', 'numpy.load', 'getattr'],
)  # fmt: skip
def test_objects_and_calls_are_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='Expected plain data'):
        read_plain_pickle(write(tmp_path / 'a.pkl', content))


def test_an_array_with_other_bytes_than_it_says_is_refused(tmp_path: Path) -> None:
    good = pickle.dumps(np.arange(4.0), protocol=2)
    assert good.count(b'K\x04') == 1
    (tmp_path / 'a.pkl').write_bytes(good.replace(b'K\x04', b'K\x7f'))
    with pytest.raises(DataError, match=r'32 bytes for an array \(127,\) of float64'):
        read_plain_pickle(tmp_path / 'a.pkl')


def test_a_types_state_from_the_file_is_not_believed(tmp_path: Path) -> None:
    """Flags of a type say "holds objects": NumPy would take bytes for addresses."""
    array = np.array(['abcd'])
    kind = Reduced(np.dtype, 'U4', False, True)
    kind.call = (*kind.call, (3, '<', None, None, None, 16, 4, 63))
    state = (1, array.shape, kind, False, array.tobytes())
    fake = Reduced(np._core.multiarray._reconstruct if hasattr(np, '_core') else np.core.multiarray._reconstruct)
    fake.call = (fake.call[0], (np.ndarray, (0,), b'b'), state)
    found = read_plain_pickle(write(tmp_path / 'a.pkl', fake))
    assert not found.dtype.hasobject
    assert found.tolist() == ['abcd']


def test_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(CONTENT)[:-30])
    with pytest.raises(DataError, match='Expected plain data'):
        read_plain_pickle(tmp_path / 'a.pkl')
    with pytest.raises(DataError, match=r'b.pkl does not exist'):
        read_plain_pickle(tmp_path / 'b.pkl')
