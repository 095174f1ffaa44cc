"""The embedded prompts and the dataset: themes, splits, latents beside prompts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS
from safetensors.torch import save_file

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.datasets.prompts import EMBEDDED, PromptDataset, read_prompts
from kdplugin.errors import ConfigError, DataError

THEMES = [
    'portrait', 'landscape', 'science fiction', 'fantasy', 'architecture', 'nature', 'culture and history',
    'still life',
]  # fmt: skip


def test_every_theme_has_six_prompts_to_train_on_and_some_held_out() -> None:
    content = json.loads(EMBEDDED.read_text())
    assert list(content) == THEMES
    for theme in THEMES:
        assert len(read_prompts(themes=[theme])) >= 6
        assert len(read_prompts(split='held_out', themes=[theme])) == 2
    assert len(read_prompts()) >= 55


def test_no_prompt_is_there_twice_nor_in_both_splits() -> None:
    every = read_prompts(split=None)
    assert len({prompt.casefold() for prompt in every}) == len(every) == 72
    assert not set(read_prompts()) & set(read_prompts(split='held_out'))
    assert all(20 < len(prompt) < 200 and prompt == prompt.strip() for prompt in every)


def test_the_dataset_is_registered_and_repeats() -> None:
    data = DATASETS.build(dict(type='kdplugin.PromptDataset', themes=['nature'], repeat=3))
    assert len(data) == 21
    assert data[0] == data[7] == dict(prompt=read_prompts(themes=['nature'])[0])
    with pytest.raises(IndexError):
        data[21]


def test_text_files_have_one_prompt_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / 'own.txt'
    file.write_text('a red door\n\n  a blue door \n')
    assert read_prompts(file) == ['a red door', 'a blue door']


def test_latents_go_with_their_prompts(tmp_path: Path) -> None:
    file = tmp_path / 'own.txt'
    file.write_text('one\ntwo\n')
    for index in range(2):
        save_file({'latents': torch.full((16, 2, 2), float(index)).half()}, tmp_path / f'{index}.safetensors')
    data = PromptDataset(str(file), latents=str(tmp_path))
    assert data[1]['prompt'] == 'two'
    assert torch.equal(data[1]['latents'], torch.ones(16, 2, 2))
    save_file({'image': torch.zeros(3)}, tmp_path / '1.safetensors')
    with pytest.raises(DataError, match=r"Expected a tensor 'latents' \(C, H, W\) in .*1.safetensors but got"):
        data[1]
    (tmp_path / '0.safetensors').unlink()
    with pytest.raises(DataError, match=r'for each of 2 prompts but 1 files are missing, such as .*0.safetensors'):
        PromptDataset(str(file), latents=str(tmp_path))


def test_held_out_prompts_find_their_own_latents(tmp_path: Path) -> None:
    every = read_prompts(split=None)
    for index, _ in enumerate(every):
        save_file({'latents': torch.full((1, 1, 1), float(index))}, tmp_path / f'{index}.safetensors')
    for item in PromptDataset(split='held_out', latents=str(tmp_path)):  # type: ignore[attr-defined]
        assert every[int(item['latents'])] == item['prompt']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('same\nsame\n', r"but got 'same' twice"),
        ('\n', r'Expected prompts in .* but got none'),
        (None, r'Expected prompts in .* but got FileNotFoundError'),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / 'own.txt'
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(file)


def test_unknown_splits_and_themes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected split to be one of .* but got 'val'"):
        read_prompts(split='val')
    with pytest.raises(ConfigError, match=r"but got 'landscap'\. Did you mean 'landscape'\?"):
        read_prompts(themes=['landscap'])
    with pytest.raises(ConfigError, match=r'Expected repeat of at least 1 but got 0'):
        PromptDataset(repeat=0)
    file = tmp_path / 'bad.json'
    file.write_text('{"nature": ["a"]}')
    with pytest.raises(DataError, match=r'Expected prompts in .*bad.json but got TypeError'):
        read_prompts(file)
