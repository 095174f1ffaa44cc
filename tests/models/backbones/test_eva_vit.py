"""EVA-ViT has ORION's tensors, computes timm's EVA-02, and takes any image, precision and checkpointing."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from timm.layers import DropPath
from timm.models.eva import Eva
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.models import EVAViT
from kdplugin.models.backbones.eva_vit import grid_positions
from kdplugin.registry import MODELS
from kdplugin.weights.layouts.eva import orion_weights
from kdplugin.weights.layouts.skeletons import eva_vit_layout

TINY: dict[str, Any] = dict(
    img_size=64, embed_dim=48, depth=3, num_heads=3, window_size=3, drop_path_rate=0.0, pretrain_img_size=64
)


def tiny(**settings: Any) -> EVAViT:
    """Return a small model with windows in blocks 0 and 1, and values everywhere that matter."""
    torch.manual_seed(0)
    return stirred(EVAViT(**TINY | settings))


def stirred(model: nn.Module) -> nn.Module:
    """Give biases and norms random values, and queries and keys sizes at which attention is far from uniform."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float(name.endswith('weight')), std=0.1)
        elif name.endswith(('q_proj.weight', 'k_proj.weight')):
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model.eval()


def images(height: int = 64, width: int = 64, number: int = 2) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


def file_like(model: EVAViT) -> dict[str, Tensor]:
    """Return a state dict of the same layout whose tables are of other images and windows, and worth nothing."""
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    rows = {name: 9 if 'rope_win' in name else 1600 for name in state if 'freqs' in name}
    return state | {name: torch.full((count, 16), torch.nan) for name, count in rows.items()}


def orion() -> EVAViT:
    with torch.device('meta'):
        return MODELS.build(dict(type='kdplugin.EVAViT'))


def test_orions_names_and_shapes_in_its_order() -> None:
    state, layout = orion().state_dict(), eva_vit_layout()
    assert list(state) == list(layout)
    assert len(state) == 511
    assert {name: value.shape for name, value in state.items()} == {n: value.shape for n, value in layout.items()}


def test_orions_parameters_without_the_rotary_tables() -> None:
    model = orion()
    assert sum(parameter.numel() for parameter in model.parameters()) == 303_388_608
    # once for windows and once for the grid; a state dict repeats them in every block
    assert sum(buffer.numel() for buffer in model.buffers()) == 2 * 64 * (256 + 1600)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_orions_settings_are_the_defaults() -> None:
    model = orion()
    windowed = [index for index, block in enumerate(model.blocks) if block.window == 16]
    assert windowed == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    assert [block.window for block in model.blocks[2::3]] == [0] * 8
    assert model.blocks[23].attn.rope is model.rope_glb
    assert model.blocks[22].attn.rope is model.rope_win
    assert [block.drop_path.drop_prob for block in model.blocks[1:]] == pytest.approx(
        [0.3 * index / 23 for index in range(1, 24)]
    )
    assert not isinstance(model.blocks[0].drop_path, DropPath)
    assert model.blocks[0].attn.scale == 64**-0.5
    with torch.device('meta'):
        assert [tuple(level.shape) for level in model(torch.empty(1, 3, 640, 640))] == [(1, 1024, 40, 40)]


def timm_twin(size: int, patch: int, **sizes: Any) -> Eva:
    """Return timm's EVA-02 without class token, whose ``forward_features`` ends before the final norm."""
    torch.manual_seed(0)
    model = Eva(
        img_size=size, patch_size=patch, num_classes=0, mlp_ratio=8 / 3, qkv_fused=False, swiglu_mlp=True,
        scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16), class_token=False, **sizes,
    )  # fmt: skip
    assert isinstance(model.norm, nn.Identity)
    return stirred(model)


def difference_to_timm(size: int, patch: int, **sizes: Any) -> tuple[float, float]:
    """Return the largest difference to timm's map, and that map's largest value."""
    timm = timm_twin(size, patch, **sizes)
    ours = EVAViT(size, patch, pretrain_img_size=size, window_block_indexes=(), drop_path_rate=0.0, **sizes).eval()
    ours.load_state_dict(orion_weights(timm.state_dict()), strict=True)
    pixels = images(size, size, 1)
    with torch.no_grad():
        wanted = timm.forward_features(pixels)
        (level,) = ours(pixels)
    return float((level.flatten(2).transpose(1, 2) - wanted).abs().max()), float(wanted.abs().max())


@pytest.mark.parametrize(('size', 'patch'), [(64, 16), (80, 8)])
def test_tiny_equals_timm(size: int, patch: int) -> None:
    difference, largest = difference_to_timm(size, patch, embed_dim=48, depth=3, num_heads=3)
    assert difference < 1e-4
    assert largest > 1


@pytest.mark.slow
def test_large_equals_timm() -> None:
    difference, largest = difference_to_timm(224, 16, embed_dim=1024, depth=24, num_heads=16)
    assert difference < 1e-4
    assert largest > 1


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_a_file_of_the_layout_loads_strictly_whatever_its_tables(loader: str) -> None:
    model = tiny()
    tables = {name: value.clone() for name, value in model.named_buffers()}
    file = file_like(model)
    if loader == 'torch':
        model.load_state_dict(file, strict=True)
    else:
        load_state_dict(model, copy.copy(file), strict=True)
    assert all(torch.equal(value, tables[name]) for name, value in model.named_buffers())
    assert all(torch.equal(parameter, file[name]) for name, parameter in model.named_parameters())


def test_a_file_that_lacks_or_has_more_than_tables_does_not_load() -> None:
    model = tiny()
    short = {name: value for name, value in file_like(model).items() if name != 'blocks.1.attn.q_bias'}
    with pytest.raises(RuntimeError, match=r'Missing key.*blocks\.1\.attn\.q_bias'):
        model.load_state_dict(short, strict=True)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*blocks\.1\.attn\.k_bias'):
        model.load_state_dict(file_like(model) | {'blocks.1.attn.k_bias': torch.zeros(48)}, strict=True)
    with pytest.raises(RuntimeError, match=r'size mismatch for pos_embed'):
        model.load_state_dict(file_like(model) | {'pos_embed': torch.zeros(1, 10, 48)}, strict=True)


def test_a_meta_model_becomes_real_by_loading() -> None:
    model = tiny()
    with torch.device('meta'):
        empty = EVAViT(**TINY).eval()
    empty.load_state_dict(model.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(empty(images())[0], model(images())[0])
    with torch.device('meta'):
        shell = EVAViT(**TINY).eval()
    shell.to_empty(device='cpu').load_state_dict(file_like(model) | dict(model.named_parameters()), strict=True)
    with torch.no_grad():
        assert torch.equal(shell(images())[0], model(images())[0])


@pytest.mark.parametrize('size', [(64, 64), (96, 64), (48, 112), (16, 16)])
def test_images_of_any_size_equal_a_model_made_for_them(size: tuple[int, int]) -> None:
    model = tiny()
    with torch.no_grad():
        (level,) = model(images(*size))
        again = model(images(*size))[0]
    assert level.shape == (2, 48, size[0] // 16, size[1] // 16)
    assert torch.equal(level, again)
    if size[0] == size[1]:
        made = tiny(img_size=size[0])
        made.load_state_dict(model.state_dict(), strict=True)
        with torch.no_grad():
            assert torch.equal(made(images(*size))[0], level)


def test_windows_and_whole_grid_differ() -> None:
    model, whole = tiny(), tiny(window_block_indexes=())
    with torch.no_grad():
        assert (model(images())[0] - whole(images())[0]).abs().max() > 1e-3


def test_rotary_positions_matter_and_can_be_left_out() -> None:
    model, without = tiny(), tiny(rope=False)
    assert not any('rope' in name for name in without.state_dict())
    with torch.no_grad():
        assert (model(images())[0] - without(images())[0]).abs().max() > 1e-3


def test_positions_of_the_pretrained_size_stay_as_they_are() -> None:
    table = torch.randn(1, 49, 8)
    assert torch.equal(grid_positions(table, (7, 7)), table.view(1, 7, 7, 8))


def cubic_weights(new: int, old: int) -> np.ndarray:
    """Return the matrix [new, old] of cubic convolution with a = -0.75 on half-pixel centres, borders repeated."""

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += kernel(centre - tap)
    return matrix


@pytest.mark.parametrize('grid', [(12, 9), (4, 7), (40, 40)])
def test_positions_are_resized_bicubically(grid: tuple[int, int]) -> None:
    table = torch.randn(1, 49, 8)
    wanted = np.einsum('hi,wj,ijc->hwc', *(cubic_weights(n, 7) for n in grid), table.view(7, 7, 8).double().numpy())
    np.testing.assert_allclose(grid_positions(table, grid)[0].numpy(), wanted, atol=1e-5)


def test_the_position_of_the_class_token_is_not_read() -> None:
    model = tiny()
    with torch.no_grad():
        before = model(images())[0]
        model.pos_embed[:, 0] += 10
        assert torch.equal(model(images())[0], before)
        model.pos_embed[:, 1] += 10
        assert not torch.equal(model(images())[0], before)
    assert tiny(pretrain_use_cls_token=False).pos_embed.shape == (1, 16, 48)


def test_maps_of_several_blocks() -> None:
    model = tiny(out_indices=(0, -1))
    outputs: list[Tensor] = []
    for index in (0, 2):
        model.blocks[index].register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        levels = model(images(64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 48, 4, 6)] * 2
    assert all(torch.equal(level, one.permute(0, 3, 1, 2)) for level, one in zip(levels, outputs, strict=True))
    assert all(level.is_contiguous() for level in levels)


@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_has_a_gradient(with_cp: bool) -> None:
    model = tiny(with_cp=with_cp).train()
    model(images(64, 96))[0].square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    assert without == still == []
    assert not model.pos_embed.grad[:, 0].any()  # the class token's
    assert model.pos_embed.grad[:, 1:].abs().sum(-1).all()


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_changes_nothing(drop_path_rate: float) -> None:
    results = []
    for with_cp in (False, True):
        model = tiny(with_cp=with_cp, drop_path_rate=drop_path_rate).train()
        torch.manual_seed(3)
        (level,) = model(images())
        level.square().sum().backward()
        results.append([level, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-5) for one, other in zip(*results, strict=True))
    assert len(results[0]) == 1 + len(list(tiny().parameters()))


def test_bfloat16_autocast_stays_near_float32() -> None:
    model = tiny().train()
    exact = model(images())[0]
    caught: list[Tensor] = []
    model.blocks[2].attn.qk.register_forward_hook(lambda module, args, output: caught.extend(output))
    with torch.autocast('cpu', torch.bfloat16):
        level = model(images())[0]
    assert {one.dtype for one in caught} == {torch.bfloat16}
    assert (level - exact).abs().max() < 0.05 * exact.abs().max()
    level.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_bfloat16_model_runs() -> None:
    (level,) = tiny().bfloat16()(images().bfloat16())
    assert level.dtype == torch.bfloat16
    assert (level - tiny()(images())[0]).abs().max() < 0.5


def test_copies_compute_the_same() -> None:
    model = tiny()
    with torch.no_grad():
        model(images(96, 64))
        twin = copy.deepcopy(model)
        assert torch.equal(twin(images(96, 64))[0], model(images(96, 64))[0])
    assert twin.blocks[2].attn.rope is twin.rope_glb
    assert twin.rope_glb is not model.rope_glb


@pytest.mark.slow
@pytest.mark.parametrize('size', [(64, 64), (96, 64)])
def test_it_is_one_graph_for_a_compiler(size: tuple[int, int]) -> None:
    model = tiny()
    compiled = torch.compile(copy.deepcopy(model), backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(images(*size))[0], model(images(*size))[0], atol=1e-5)


def test_initial_values() -> None:
    torch.manual_seed(0)
    model = EVAViT(**TINY | dict(embed_dim=192))
    block = model.blocks[2]
    assert float(block.mlp.w1.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.mlp.w3.weight.detach().std()) == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert float(block.attn.proj.weight.detach().std()) == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert float(model.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)
    biases = [parameter for name, parameter in block.named_parameters() if name.endswith('bias')]
    assert len(biases) == 9
    assert not any(bias.any() for bias in biases)


def trainable(model: EVAViT) -> Iterator[str]:
    return (name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_frozen_stages_hold_patches_positions_and_blocks() -> None:
    model = tiny(frozen_stages=2, drop_path_rate=0.5).train()
    assert {name.split('.')[1] for name in trainable(model)} == {'2'}
    assert [block.training for block in model.blocks] == [False, False, True]
    assert set(trainable(tiny(frozen_stages=0))) == {
        name for name, _ in tiny().named_parameters() if name.startswith('blocks.')
    }
    assert len(list(trainable(tiny()))) == len(list(tiny().parameters()))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_heads=5), 'Expected num_heads that divides embed_dim 48 but got 5. Give head_dim'),
        (dict(num_heads=(3, 2, 1)), r'Expected head_dim beside num_heads \[3, 2, 1\] but got None'),
        (dict(num_heads=(3, 2), head_dim=16), 'Expected num_heads for each of 3 blocks but got 2 values'),
        (dict(ffn_hidden=(8, 0, 8)), 'Expected ffn_hidden of at least 1 but got 0 for block 1'),
        (dict(window_block_indexes=(0, 3)), 'Expected window_block_indexes from 0 to 2 but got 3'),
        (dict(out_indices=(0, 1)), r'Expected ascending out_indices up to the last block 2 but got \(0, 1\)'),
        (dict(frozen_stages=4), 'Expected frozen_stages from -1 to 3 but got 4'),
        (dict(num_heads=8), 'Expected heads of a width that divides by 4, .* but got 6'),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EVAViT(**TINY | settings)


def test_images_that_are_no_multiple_of_the_patch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'divide by 16 but got 64 x 72\. Set pad_size_divisor=16'):
        tiny()(images(64, 72))
