"""The names of EVA-02's detection form and timm's are each other's inverse, and their tensors fit timm's own model."""

from __future__ import annotations

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.eva import ROTARY, grid_rows, orion_weights, timm_weights, to_orion, to_timm
from kdplugin.weights.layouts.skeletons import eva_vit_layout


def timm_large(class_token: bool, **settings: object) -> Eva:
    """Return timm's EVA-02 large with ORION's patches, on the meta device."""
    with torch.device('meta'):
        return Eva(
            img_size=224, patch_size=16, embed_dim=1024, depth=24, num_heads=16, num_classes=0, mlp_ratio=8 / 3,
            qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16),
            class_token=class_token, **settings,
        )  # fmt: skip


def shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def test_names_there_and_back() -> None:
    names = [name for name in eva_vit_layout() if not ROTARY.fullmatch(name)]
    renamed = [to_timm(name) for name in names]
    assert len(set(renamed)) == len(names) == 511 - 52
    assert [to_orion(name) for name in renamed] == names


@pytest.mark.parametrize(
    ('orion', 'timm'),
    [
        ('patch_embed.proj.bias', 'patch_embed.proj.bias'),
        ('blocks.7.attn.q_bias', 'blocks.7.attn.q_proj.bias'),
        ('blocks.7.attn.k_proj.weight', 'blocks.7.attn.k_proj.weight'),
        ('blocks.7.mlp.w1.weight', 'blocks.7.mlp.fc1_g.weight'),
        ('blocks.7.mlp.w2.bias', 'blocks.7.mlp.fc1_x.bias'),
        ('blocks.7.mlp.ffn_ln.weight', 'blocks.7.mlp.norm.weight'),
        ('blocks.7.mlp.w3.bias', 'blocks.7.mlp.fc2.bias'),
    ],
)
def test_known_names(orion: str, timm: str) -> None:
    assert to_timm(orion) == timm
    assert to_orion(timm) == orion


def test_the_layout_fills_timms_large_model_but_for_its_norm() -> None:
    weights = shapes(timm_weights(eva_vit_layout()))
    own = shapes(timm_large(class_token=False).state_dict())
    assert own.keys() - weights.keys() == {'fc_norm.weight', 'fc_norm.bias'}
    assert weights == {name: shape for name, shape in own.items() if not name.startswith('fc_norm')}
    bare = timm_large(class_token=False, use_fc_norm=False, use_post_transformer_norm=False)
    assert shapes(bare.state_dict()) == weights


@pytest.mark.parametrize('class_token', [True, False])
def test_timms_large_model_fills_the_layout_but_for_its_tables(class_token: bool) -> None:
    weights = shapes(orion_weights(timm_large(class_token).state_dict()))
    assert weights == {name: shape for name, shape in shapes(eva_vit_layout()).items() if 'freqs' not in name}


def test_values_stay_and_the_class_tokens_position_goes() -> None:
    weights = {'pos_embed': torch.randn(1, 10, 4), 'blocks.0.mlp.w2.bias': torch.randn(3)}
    there = timm_weights(weights | {'rope_win.freqs_cos': torch.zeros(4, 4)})
    assert there['blocks.0.mlp.fc1_x.bias'] is weights['blocks.0.mlp.w2.bias']
    assert torch.equal(there['pos_embed'], weights['pos_embed'][:, 1:])
    back = orion_weights(there)
    assert back.keys() == weights.keys()
    assert torch.equal(back['pos_embed'][:, 1:], weights['pos_embed'][:, 1:])
    assert not back['pos_embed'][:, 0].any()


def test_a_class_tokens_position_is_kept() -> None:
    weights = {'pos_embed': torch.randn(1, 10, 4), 'cls_token': torch.zeros(1, 1, 4)}
    assert torch.equal(orion_weights(weights)['pos_embed'], weights['pos_embed'])


@pytest.mark.parametrize('name', ['blocks.0.attn.k_bias', 'rope_glb.freqs_cos', 'img_backbone.pos_embed', 'norm.bias'])
def test_strange_names_are_refused(name: str) -> None:
    with pytest.raises(
        CheckpointError, match=rf"Expected a tensor of EVA-02's .* but got '{name}'\. Give the backbone"
    ):
        to_timm(name)


def test_timms_small_form_is_refused() -> None:
    with torch.device('meta'):
        small = Eva(img_size=28, patch_size=14, embed_dim=192, depth=1, num_heads=3, swiglu_mlp=True)
    with pytest.raises(CheckpointError, match=r"timm's EVA-02 base or large .* but got 'blocks\.0\.attn\.q"):
        orion_weights(small.state_dict())


def test_positions_that_are_no_square_grid_are_refused() -> None:
    assert grid_rows(torch.zeros(1, 9, 2)).shape == (1, 9, 2)
    with pytest.raises(CheckpointError, match=r'positions of a square grid, .* but got 12'):
        grid_rows(torch.zeros(1, 12, 2))
