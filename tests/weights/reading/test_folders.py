"""Which file of a folder is meant: never a guess among several, never silence about none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.folders import choose, listing

WAN = [
    'model_index.json',
    'scheduler/scheduler_config.json',
    'text_encoder/model-00001-of-00002.safetensors',
    'text_encoder/model-00002-of-00002.safetensors',
    'text_encoder/model.safetensors.index.json',
    'transformer/config.json',
    'transformer/diffusion_pytorch_model-00001-of-00001.safetensors',
    'transformer/diffusion_pytorch_model.safetensors.index.json',
    'transformer_2/diffusion_pytorch_model-00001-of-00001.safetensors',
    'transformer_2/diffusion_pytorch_model.safetensors.index.json',
    'vae/diffusion_pytorch_model.safetensors',
]


@pytest.mark.parametrize(
    ('names', 'chosen'),
    [
        (['a.pth', 'config.py'], 'a.pth'),
        (['model_best.pth.tar', 'log.txt'], 'model_best.pth.tar'),
        (['student.safetensors', 'README.md'], 'student.safetensors'),
        (['model.safetensors', 'pytorch_model.bin', 'flax_model.msgpack'], 'model.safetensors'),
        (['a.bin', 'training_args.bin', 'optimizer.pt', 'scheduler.pt', 'rng_state_0.pth'], 'a.bin'),
        (['pytorch_model.bin', 'a.pth'], 'pytorch_model.bin'),
        (
            ['pytorch_model.bin.index.json', 'pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin'],
            'pytorch_model.bin.index.json',
        ),
        (
            ['model.safetensors.index.json', 'model-00001-of-00001.safetensors', 'pytorch_model.bin.index.json'],
            'model.safetensors.index.json',
        ),
        (
            ['diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.fp16.safetensors'],
            'diffusion_pytorch_model.safetensors',
        ),
        (['diffusion_pytorch_model.fp16.safetensors', 'config.json'], 'diffusion_pytorch_model.fp16.safetensors'),
        (['open_clip_pytorch_model.bin', 'open_clip_model.safetensors'], 'open_clip_model.safetensors'),
        (['open_clip_model.safetensors', 'model.safetensors', 'a.bin'], 'model.safetensors'),
        (['model_index.json', 'unet/pytorch_model.bin', 'scheduler/x.json'], 'unet/pytorch_model.bin'),
        (['a.pth', 'transformer/model.safetensors'], 'a.pth'),
    ],
)  # fmt: skip
def test_one_is_meant(names: list[str], chosen: str) -> None:
    assert choose(names, 'here') == chosen
    assert choose(names[::-1], 'here') == chosen


@pytest.mark.parametrize('subfolder', ['transformer', 'transformer_2', 'transformer/'])
def test_experts_of_a_diffusers_folder(subfolder: str) -> None:
    name = subfolder.strip('/')
    assert choose(WAN, 'Wan', subfolder) == f'{name}/diffusion_pytorch_model.safetensors.index.json'
    assert choose(WAN, 'Wan', 'vae') == 'vae/diffusion_pytorch_model.safetensors'


def test_nested_subfolders() -> None:
    assert choose(['a/b/model.safetensors', 'a/c/model.safetensors'], 'here', 'a/c') == 'a/c/model.safetensors'


def test_several_components_and_no_choice() -> None:
    message = (
        r'Expected one of the 4 components of the diffusers folder Wan but got none: text_encoder, transformer, '
        r'transformer_2, vae hold weights \(in Wan 2\.2, transformer is the high-noise expert and transformer_2 the '
        r'low-noise one\)\. Set subfolder to one of them\.'
    )
    with pytest.raises(CheckpointError, match=message):
        choose(WAN, 'Wan')
    with pytest.raises(CheckpointError, match=r'got none: unet, vae hold weights\. Set subfolder'):
        choose(['model_index.json', 'unet/model.safetensors', 'vae/model.safetensors'], 'SD')


def test_a_wrong_subfolder() -> None:
    message = (
        r"subfolder of Wan but got 'tranformer'\. Did you mean 'transformer' or .* It has .*vae\. Correct subfolder"
    )
    with pytest.raises(CheckpointError, match=message):
        choose(WAN, 'Wan', 'tranformer')
    with pytest.raises(CheckpointError, match=r"subfolder of here but got 'x'\. It has none\."):
        choose(['a.pth'], 'here', 'x')
    with pytest.raises(
        CheckpointError, match=r'Expected weights in Wan/scheduler but got scheduler_config\.json\. Give a'
    ):
        choose(WAN, 'Wan', 'scheduler')


@pytest.mark.parametrize(
    ('names', 'found'),
    [
        (['epoch_1.pth', 'epoch_2.pth', 'config.py'], r'got 2: epoch_1\.pth, epoch_2\.pth'),
        (['student.pth', 'student.safetensors'], r'got 2: student\.pth, student\.safetensors'),
        (
            ['model.safetensors', 'model.safetensors.index.json'],
            r'got 2: model\.safetensors, model\.safetensors\.index',
        ),
        ([f'{i}.pth' for i in range(12)], r'got 12: 0\.pth, .*9\.pth and 2 more'),
    ],
)
def test_several_that_could_be_meant(names: list[str], found: str) -> None:
    with pytest.raises(CheckpointError, match=rf'Expected one checkpoint in here but {found}.*Give the path of one'):
        choose(names, 'here')


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ([], r'Expected weights in here but got no files\. Give a folder with one of \.safetensors, \.bin, \.pth'),
        (['README.md', 'training_args.bin'], r'but got README\.md, training_args\.bin\. Give a folder'),
        (['README.md', 'unet/a.safetensors', 'x/y.txt'], r'got README\.md\. Set subfolder to one of unet\.'),
        (
            ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'],
            r'an index beside the shards in here but got model-00001.* alone\. Copy model\.safetensors\.index\.json',
        ),
        (['pytorch_model-00001-of-00001.bin'], r'alone\. Copy pytorch_model\.bin\.index\.json as well'),
        (['model_index.json', 'scheduler/a.json'], r'weights in here but got model_index\.json\. Give a folder'),
    ],
)  # fmt: skip
def test_no_weights(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        choose(names, 'here')


def test_a_folder_is_listed_two_levels_deep(tmp_path: Path) -> None:
    for name in ('a.pth', 'config.json', 'b/c.pth', 'b/d/e.pth', 'b/d/f/g.pth'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert listing(tmp_path) == ['a.pth', 'b/c.pth', 'config.json']
    assert listing(tmp_path, 'b/d') == ['a.pth', 'b/c.pth', 'b/d/e.pth', 'b/d/f/g.pth', 'config.json']
    assert listing(tmp_path, 'none') == listing(tmp_path)
    assert listing(tmp_path / 'none') == []
