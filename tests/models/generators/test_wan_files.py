"""Pipelines on disk, in both layouts: found, compared whole, loaded, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from wan_fixtures import asked, pipeline, video_model

from kdplugin.errors import CheckpointError
from kdplugin.models.generators.wan_files import (
    load_scheduler,
    load_transformer,
    open_transformer,
    pipeline_folder,
    transformer_config,
    wan_folder,
)
from kdplugin.weights.layouts.wan import to_native

__all__ = ['pipeline']
OWN = dict(
    _class_name='WanModel', model_type='t2v', dim=24, num_heads=2, ffn_dim=40, num_layers=3, in_dim=4, out_dim=4,
    freq_dim=16, text_dim=10, eps=1e-6, text_len=512,
)  # fmt: skip


def native(folder: Path, model: torch.nn.Module) -> Path:
    """Write an expert as Wan's own release has it."""
    folder.mkdir(parents=True)
    save_file({to_native(name): value for name, value in model.state_dict().items()},
              folder / 'diffusion_pytorch_model.safetensors')  # fmt: skip
    (folder / 'config.json').write_text(json.dumps(OWN))
    return folder


@pytest.mark.parametrize('layout', ['diffusers', 'native'])
def test_a_loaded_expert_is_the_saved_one(tmp_path: Path, layout: str) -> None:
    model = video_model()
    if layout == 'native':
        folder = native(tmp_path / 'expert', model)
    else:
        folder = tmp_path / 'expert'
        model.save_pretrained(folder)
    found = load_transformer(folder, 'float32')
    latents, timesteps, text = asked()
    with torch.no_grad():
        ours, theirs = (one(latents[:, :, None], timesteps, text).sample for one in (found, model))
    assert torch.equal(ours, theirs)
    assert not found.training
    assert not any(value.requires_grad or value.is_meta for value in found.parameters())


def test_half_precision_leaves_what_is_delicate_in_single(tmp_path: Path) -> None:
    """diffusers' own list: its from_pretrained needs accelerate for it."""
    model = video_model()
    model.save_pretrained(tmp_path / 'expert')
    found = load_transformer(tmp_path / 'expert', 'bfloat16').state_dict()
    exact = {name for name, value in found.items() if value.dtype == torch.float32}
    assert exact == {name for name in found if {'time_embedder', 'scale_shift_table', 'norm2'} & set(name.split('.'))}
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value if name in exact else value.bfloat16())


def test_the_parts_of_a_pipeline_are_found(pipeline: Path, tmp_path: Path) -> None:
    found = wan_folder(pipeline)
    assert found.experts == {'high': pipeline / 'transformer', 'low': pipeline / 'transformer_2'}
    assert found.boundary == 0.875
    for name in ('high_noise_model', 'low_noise_model'):
        native(tmp_path / 'own' / name, video_model())
    own = wan_folder(tmp_path / 'own')
    assert [path.name for path in own.experts.values()] == ['high_noise_model', 'low_noise_model']
    assert own.boundary == 0.875
    single = wan_folder(native(tmp_path / 'single', video_model()))
    assert (single.experts, single.boundary) == ({'high': tmp_path / 'single'}, None)


@pytest.mark.parametrize('damage', ['missing', 'unknown', 'shape'])
def test_an_expert_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path, damage: str) -> None:
    video_model().save_pretrained(tmp_path)
    file = tmp_path / 'diffusion_pytorch_model.safetensors'
    tensors = load_file(file)
    name = 'blocks.1.attn2.to_k.bias'
    if damage == 'missing':
        del tensors[name]
    elif damage == 'unknown':
        name = 'blocks.1.attn2.more'
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(23)
    save_file(tensors, file)
    said = {'missing': 'missing', 'unknown': 'unknown', 'shape': r'\(23,\) for \(24,\)'}[damage]
    with pytest.raises(
        CheckpointError, match=rf'Expected the \d+ tensors of .* but 1 do not fit, such as {name}: {said}'
    ):
        open_transformer(tmp_path)


@pytest.mark.parametrize('ratio', [None, 0, 1.5, 'high'])
def test_two_experts_need_a_boundary(pipeline: Path, tmp_path: Path, ratio: object) -> None:
    for part in ('transformer', 'transformer_2'):
        shutil.copytree(pipeline / part, tmp_path / part)
    (tmp_path / 'model_index.json').write_text(json.dumps(dict(boundary_ratio=ratio)))
    with pytest.raises(CheckpointError, match=r'Expected boundary_ratio from 0 to 1 in .* but got'):
        wan_folder(tmp_path)


def test_what_is_no_pipeline_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'something.txt').write_text('')
    with pytest.raises(
        CheckpointError, match=r"Expected transformer/ or high_noise_model/ in .* but got \['something.txt'\]"
    ):
        wan_folder(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"Expected the folder of a Wan pipeline, or its id, but got 'nowhere': it is no folder"
    ):
        pipeline_folder('nowhere')
    (tmp_path / 'config.json').write_text(json.dumps(dict(OWN, model_type='i2v')))
    with pytest.raises(CheckpointError, match=r'Expected the config of a text-to-video Wan transformer'):
        transformer_config(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(CheckpointError, match=r'Expected a JSON file .*config.json but got JSONDecodeError'):
        transformer_config(tmp_path)

    import huggingface_hub

    def no_network(*_: object, **__: object) -> str:
        raise ConnectionError('no route')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', no_network)
    with pytest.raises(
        CheckpointError, match=r'it cannot be had \(ConnectionError\)\. Download it where there is a network'
    ):
        pipeline_folder('Wan-AI/Wan2.2-T2V-A14B-Diffusers')


def test_the_scheduler_is_that_of_the_folder(pipeline: Path, tmp_path: Path) -> None:
    found = load_scheduler(pipeline)
    assert (type(found).__name__, found.config.flow_shift) == ('UniPCMultistepScheduler', 3.0)
    assert type(load_scheduler(tmp_path)).__name__ == 'FlowMatchEulerDiscreteScheduler'
    (tmp_path / 'scheduler').mkdir()
    (tmp_path / 'scheduler' / 'scheduler_config.json').write_text(json.dumps(dict(_class_name='os')))
    with pytest.raises(CheckpointError, match=r"Expected a scheduler of diffusers in .* but got 'os'"):
        load_scheduler(tmp_path)
