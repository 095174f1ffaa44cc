from __future__ import annotations

from pathlib import Path

import make_b2d_fixture
import pytest

from kdplugin.weights.reading.io import read_checkpoint


def test_it_writes_frames_and_a_checkpoint_and_leaves_them_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / 'b2d'), '--frames', '1', '--size', '45', '80', '--checkpoint', str(tmp_path / 'a.pth')]
    assert make_b2d_fixture.main([*words, '--tiny']) == 0
    out = capsys.readouterr().out
    assert '2 frames with 12 images' in out
    assert 'tensors of img_backbone and 8 of other parts' in out
    weights = read_checkpoint(tmp_path / 'a.pth')['state_dict']
    assert weights['img_backbone.blocks.2.attn.q_proj.weight'].shape == (64, 64)
    assert make_b2d_fixture.main(words) == 1
    assert 'Expected a new or empty folder' in capsys.readouterr().err
