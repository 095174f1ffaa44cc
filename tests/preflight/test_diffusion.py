from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from wan_fixtures import PROMPTS, distilled, pipeline

from kdplugin.models.generators.wan_files import empty_transformer
from kdplugin.preflight.diffusion import check_diffusion, teacher_layout
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.verify import verify

__all__ = ['pipeline']
ROOT = Path(__file__).parents[2]
A14B = dict(
    num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, num_layers=40, text_dim=4096, freq_dim=256,
    in_channels=16, out_channels=16,
)  # fmt: skip
SHARD = 4_000_000_000


@pytest.fixture
def config(pipeline: Path, tmp_path: Path) -> Config:
    loader = dict(batch_size=2, dataset=dict(type='kdplugin.PromptDataset'))
    return Config(dict(model=distilled(pipeline, tmp_path), train_dataloader=loader))


def told(config: Config) -> list[tuple[str, str]]:
    found = Findings()
    check_diffusion(found, config)
    return [(one.where, one.message) for one in found.errors]


def test_what_is_right_is_no_finding_and_nothing_is_written(config: Config, tmp_path: Path) -> None:
    assert told(config) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('changes', 'where', 'says'),
    [
        ({'teacher.path': 'weights/wan'}, 'model.teacher.path', "--local-dir weights/wan'.*make_wan_tiny"),
        ({'teacher.path': str(ROOT / 'configs')}, 'model.teacher.path', r'Expected transformer/ or high_noise_model/'),
        ({'teacher.dtype': 'bf16'}, 'model.teacher', "Expected dtype of .* but got 'bf16'"),
        ({'teacher.guidance': dict(high=4.0)}, 'model.teacher', 'Expected guidance in teacher'),
        ({'flow.size': (9, 9)}, 'model.flow', r'both even, but got \(9, 9\)'),
        ({'flow.size': 64}, 'model.flow', 'both even, but got 64'),
        ({'flow.step': 20}, 'model.flow', "got 'step'. Did you mean 'steps'"),
        ({'text_encoder.cache': None}, 'model', 'Expected a folder in text_encoder'),
        ({'text_encoder.path': str(ROOT)}, 'model.text_encoder', r'Expected text_encoder/ in .* but there is none'),
        ({'drop_prompt': 10}, 'model', 'Expected drop_prompt from 0 to below 1 but got 10'),
        ({'student.num_heads': 5}, 'model.student', 'Expected num_heads that divide hidden_size='),
        ({'student.hidden_size': 25}, 'model.student', 'Expected an even hidden_size'),
        ({'student.text_dim': 64}, 'model.student', 'of the latents and text of its teacher'),
        ({'student.type': 'ResNet'}, 'model.student', r'Expected a kdplugin.WanLiteStudent as student'),
        ({'pairs.block.student_tap': 'blocks.2'}, 'model.pairs.block.student_tap', "of the student but got 'blocks.2'"),
        ({'pairs.block.teacher_tap': 'block.3'}, 'model.pairs.block.teacher_tap', "Did you mean 'blocks.3'"),
        ({'pairs.block.teacher_tap': None}, 'model.pairs.block', 'to have loss and tap'),
        ({'pairs.block.loss.type': 'kdplugin.L2los'}, 'model.pairs.block', "Did you mean 'kdplugin.L2Loss'"),
        ({'pair': {}}, 'model', "in kdplugin.DiffusionDistiller but got 'pair'. Did you mean 'pairs'"),
    ],
)  # fmt: skip
def test_mistakes_and_their_cures(config: Config, changes: dict[str, Any], where: str, says: str) -> None:
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    ((place, message),) = told(config)
    assert place == where
    assert re.search(says, message, re.DOTALL), message


def test_the_encoders_width_is_that_which_the_teacher_reads(config: Config, pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / 'other')
    file = tmp_path / 'other' / 'text_encoder' / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'd_model': 48}))
    config.model.text_encoder.path = str(tmp_path / 'other')
    assert [(where, 'of width 32' in text and 'says 48' in text) for where, text in told(config)] == [
        ('model.text_encoder', True)
    ]


def test_prompts_are_read(config: Config, tmp_path: Path) -> None:
    config.train_dataloader.dataset.prompts = str(tmp_path / 'gone.txt')
    assert [(where, 'Expected prompts in' in text) for where, text in told(config)] == [
        ('train_dataloader.dataset', True)
    ]
    (tmp_path / 'twice.txt').write_text(f'{PROMPTS[0]}\n{PROMPTS[0]}\n')
    config.train_dataloader.dataset.prompts = str(tmp_path / 'twice.txt')
    assert 'twice' in told(config)[0][1]
    config.train_dataloader.dataset = dict(type='mmdet.CocoDataset')
    ((where, text),) = told(config)
    assert (where, "got CocoDataset. Write dataset=dict(type='kdplugin.PromptDataset')" in text) == (
        'train_dataloader.dataset.type', True,
    )  # fmt: skip


def test_damaged_weights_are_told(config: Config, pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / 'other')
    file = tmp_path / 'other' / 'transformer_2' / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'ffn_dim': 50}))
    config.model.teacher.path = str(tmp_path / 'other')
    ((where, text),) = told(config)
    assert where == 'model.teacher.path'
    assert 'do not fit' in text


def write_layout(folder: Path, experts: int) -> None:
    """Write what T2V-A14B's folder says of itself; its shards are holes, which take no room on the disk."""
    for number in range(experts):
        part = folder / ('transformer' if number == 0 else 'transformer_2')
        part.mkdir(parents=True)
        (part / 'config.json').write_text(json.dumps(A14B))
        shards: list[dict[str, Any]] = [{}]
        at, places = 0, {}
        for name, value in empty_transformer(A14B).state_dict().items():
            if at > SHARD:
                shards.append({})
                at = 0
            end = at + 2 * value.numel()
            shards[-1][name] = dict(dtype='BF16', shape=list(value.shape), data_offsets=[at, end])
            places[name], at = f'{len(shards)}.safetensors', end
        for count, shard in enumerate(shards, 1):
            text = json.dumps(shard).encode()
            with (part / f'{count}.safetensors').open('wb') as file:
                file.write(struct.pack('<Q', len(text)) + text)
                file.truncate(8 + len(text) + max(one['data_offsets'][1] for one in shard.values()))
        index = dict(metadata={}, weight_map=places)
        (part / 'diffusion_pytorch_model.safetensors.index.json').write_text(json.dumps(index))


@pytest.mark.slow
def test_the_real_config_passes_on_the_layout_of_its_teacher(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folder that is the only error; with it there is none, and taps, text and widths were compared."""
    config = Config.fromfile(ROOT / 'configs/wan/wan-lite_1024x16_wan22-a14b.py')
    monkeypatch.chdir(tmp_path)
    errors = verify(config, static=True).errors
    assert [one.where for one in errors] == ['model.teacher.path']
    root = Path(config.model.teacher.path)
    write_layout(root, experts=2)
    for part in ('scheduler', 'tokenizer', 'text_encoder', 'model_index.json'):
        copy: Any = shutil.copytree if (pipeline / part).is_dir() else shutil.copy
        copy(pipeline / part, root / part)
    (root / 'text_encoder' / 'config.json').write_text(json.dumps(dict(d_model=4096)))
    found = verify(config, static=True)
    assert found.errors == []
    assert found.broken == []
    layout = teacher_layout(Findings(), config.model.teacher)
    assert layout is not None
    assert layout.parameters == 2 * 14_288_491_584
    config.model.pairs.last.teacher_tap = 'blocks.40'
    assert [one.where for one in verify(config, static=True).errors] == ['model.pairs.last.teacher_tap']


def test_a_validation_that_nothing_measures_is_an_error(config: Config) -> None:
    config.val_cfg = dict(type='ValLoop')
    errors = [one for one in verify(config, static=True).errors if one.where == 'val_cfg']
    assert len(errors) == 1
    assert 'Expected no validation, because no metric measures what this student makes' in errors[0].message
