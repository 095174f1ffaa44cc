from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdplugin.datasets.bench2drive import CAMERAS
from kdplugin.datasets.bench2drive_fixture import write_fixture
from kdplugin.datasets.plain_pickle import read_plain_pickle
from kdplugin.errors import DataError


def test_it_has_the_layout_of_the_real_thing(tmp_path: Path) -> None:
    report = write_fixture(tmp_path / 'b2d', frames=2, size=(45, 80))
    assert (report.frames, report.images) == (4, 24)
    assert str(report) == f'{tmp_path / "b2d"}: 4 frames with 24 images, infos and dialogues'
    infos = read_plain_pickle(tmp_path / 'b2d/infos/b2d_infos_train.pkl')
    assert [info['frame_idx'] for info in infos] == [0, 1]
    info = infos[0]
    assert info['gt_boxes'].shape == (8, 9)
    assert info['gt_names'].dtype.kind == 'U'
    for camera in CAMERAS:
        sensor = info['sensors'][camera]
        assert sensor['intrinsic'].shape == (3, 3)
        np.testing.assert_allclose(sensor['cam2ego'][:3, :3] @ sensor['cam2ego'][:3, :3].T, np.eye(3), atol=1e-12)
        assert Image.open(tmp_path / 'b2d/bench2drive' / sensor['data_path']).size == (80, 45)
    scenario = Path(info['folder']).name
    pairs = json.loads((tmp_path / f'b2d/chat-B2D/train/{scenario}/00000.json').read_text())
    assert [one['from'] for one in pairs[0]] == ['human', 'gpt']


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_fixture(tmp_path / name, frames=1, size=(45, 80), seed=seed)
    first, second, third = ((tmp_path / name / 'infos/b2d_infos_val.pkl').read_bytes() for name in 'abc')
    assert first == second != third


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'mine').write_text('x')
    with pytest.raises(DataError, match='Expected a new or empty folder'):
        write_fixture(tmp_path)
