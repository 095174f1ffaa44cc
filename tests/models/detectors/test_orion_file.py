from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdplugin.models.detectors.orion_file import OTHERS, orion_state, write_orion_checkpoint
from kdplugin.weights.layouts.skeletons import eva_vit_layout
from kdplugin.weights.reading.io import read_checkpoint

TINY = dict(img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=2, pretrain_img_size=32)


def test_it_has_orions_names_and_shapes_beside_others() -> None:
    with torch.device('meta'):
        state = orion_state()
    own = {name.removeprefix('img_backbone.'): value.shape for name, value in state.items() if name not in OTHERS}
    assert own == {name: value.shape for name, value in eva_vit_layout().items()}
    assert len(own) == 511
    assert state.keys() >= OTHERS.keys()


def test_the_same_seed_gives_the_same_weights_and_the_generator_rests(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    said = write_orion_checkpoint(tmp_path / 'a.pth', 3, **TINY)
    assert torch.equal(torch.get_rng_state(), before)
    assert f'tensors of img_backbone and {len(OTHERS)} of other parts' in said
    saved = read_checkpoint(tmp_path / 'a.pth')
    assert saved.keys() == {'meta', 'state_dict'}
    again = orion_state(3, **TINY)
    assert all(torch.equal(saved['state_dict'][name], value) for name, value in again.items())
    other = orion_state(4, **TINY)['img_backbone.pos_embed']
    assert not torch.equal(saved['state_dict']['img_backbone.pos_embed'], other)
    assert pytest.approx(0.02, rel=0.2) == float(other.std())
