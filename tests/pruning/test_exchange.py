"""A pruned backbone in ORION's and timm's layouts computes what it computed, and comes back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.models import EVAViT, EVAViTStudent
from kdplugin.pruning.exchange import backbone_of, export_backbone
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.weights.layouts.eva import orion_weights

SIZES: dict[str, Any] = dict(
    img_size=64, embed_dim=48, depth=3, window_size=3, drop_path_rate=0.0, pretrain_img_size=64
)
NEURONS = (tuple(range(128)),) * 3
PLAN = PruningPlan(((0, 2), (1,), (0, 1, 3)), NEURONS, num_heads=4, hidden=128, head_dim=12)


def stirred(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def pruned(**changes: Any) -> nn.Module:
    return stirred(EVAViTStudent(plan=PLAN, **SIZES | changes))


def save(model: nn.Module, path: Path) -> Path:
    """Save a student's checkpoint: a backbone, and a head that others do not want."""
    state = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': {**state, 'bbox_head.weight': torch.ones(3)}, 'optimizer': {}}, path)
    return path


def weights_in(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


IMAGES = torch.randn(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_orions_whole_model_computes_what_the_pruned_student_does(tmp_path: Path) -> None:
    student = pruned()
    report = export_backbone(save(student, tmp_path / 'a.pth'), tmp_path / 'b.pth', 'orion', PLAN)
    weights = weights_in(tmp_path / 'b.pth')
    assert all(name.startswith('img_backbone.') for name in weights)
    whole = EVAViT(num_heads=4, **SIZES).eval()
    whole.load_state_dict({name.removeprefix('img_backbone.'): value for name, value in weights.items()}, strict=True)
    torch.testing.assert_close(whole(IMAGES)[0], student(IMAGES)[0], rtol=0, atol=1e-5)
    assert (report.tensors, report.left, report.filled) == (len(weights), 1, 6)
    assert str(report).endswith('6 pruned heads filled with zeros; 1 tensors of other parts left out')


def test_orions_layout_and_back_is_bit_equal(tmp_path: Path) -> None:
    student = pruned()
    export_backbone(save(student, tmp_path / 'a.pth'), tmp_path / 'b.pth', 'orion', PLAN)
    back = prune_state(PLAN.replaced(prefix='img_backbone.'), weights_in(tmp_path / 'b.pth'))
    own = student.state_dict()
    assert [name.removeprefix('img_backbone.') for name in back] == list(own)
    assert all(torch.equal(back[f'img_backbone.{name}'], value) for name, value in own.items())


@torch.no_grad()
def test_timm_computes_the_same_before_its_final_norm(tmp_path: Path) -> None:
    student = pruned(window_block_indexes=(), patch_size=16, pt_hw_seq_len=4)
    export_backbone(save(student, tmp_path / 'a.pth'), tmp_path / 'b.pth', 'timm', PLAN)
    weights = weights_in(tmp_path / 'b.pth')
    eva = Eva(
        img_size=64, patch_size=16, embed_dim=48, depth=3, num_heads=4, mlp_ratio=8 / 3, qkv_fused=False,
        swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4), class_token=False, num_classes=0,
        global_pool='', dynamic_img_size=False,
    ).eval()  # fmt: skip
    missing, extra = eva.load_state_dict(weights, strict=False)
    assert not extra
    assert set(missing) <= {'norm.weight', 'norm.bias'}
    eva.norm = nn.Identity()
    images = IMAGES[..., :64]
    ours = student(images)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(eva.forward_features(images), ours, rtol=0, atol=1e-4)


def test_timms_layout_and_back_is_bit_equal(tmp_path: Path) -> None:
    student = stirred(EVAViT(num_heads=4, **SIZES))
    export_backbone(save(student, tmp_path / 'a.pth'), tmp_path / 'b.pth', 'timm')
    back = orion_weights(weights_in(tmp_path / 'b.pth'))
    own = dict(student.named_parameters())
    assert back.keys() == own.keys()
    for name, value in own.items():
        skip = 1 if name == 'pos_embed' else 0  # the class token's position, which nothing reads
        assert torch.equal(back[name][:, skip:] if skip else back[name], value[:, skip:] if skip else value), name


def test_a_whole_backbone_needs_no_plan(tmp_path: Path) -> None:
    student = stirred(EVAViT(num_heads=4, **SIZES))
    report = export_backbone(save(student, tmp_path / 'a.pth'), tmp_path / 'b.safetensors', 'orion')
    assert report.filled == 0
    assert (tmp_path / 'b.safetensors').is_file()


def test_what_cannot_be_expressed_is_refused(tmp_path: Path) -> None:
    file = save(pruned(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'Expected a backbone with all of its heads .*--plan'):
        export_backbone(file, tmp_path / 'b.pth', 'orion')
    neurons = PLAN.replaced(neurons=(tuple(range(100)),) * 3)
    with pytest.raises(CheckpointError, match='ffn_ln normalises over the kept neurons'):
        export_backbone(file, tmp_path / 'b.pth', 'orion', neurons)
    with pytest.raises(ConfigError, match=r"Expected a layout of .* but got 'orino'. Did you mean 'orion'"):
        export_backbone(file, tmp_path / 'b.pth', 'orino', PLAN)
    with pytest.raises(CheckpointError, match=r'Expected backbone.blocks.N.attn.q_proj.weight in a file but got none'):
        backbone_of({'backbone.layer1.weight': torch.ones(1)}, 'a file')
    assert not (tmp_path / 'b.pth').exists()
