"""Prompts to generate images from, and the embedded ones: 72 in eight themes, of which 16 are held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from kdplugin.errors import ConfigError, DataError
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import DATASETS
from kdplugin.weights.reading.io import read_checkpoint

EMBEDDED = Path(__file__).with_name('prompts.json')
SPLITS = ('train', 'held_out')
LATENTS = 'latents'
"""The name of the tensor in a file of image latents."""


def read_prompts(
    file: str | Path | None = None, split: str | None = 'train', themes: Sequence[str] | None = None
) -> list[str]:
    """Return the prompts of a file, the embedded ones by default.

    Args:
        file: JSON of themes with splits (as ``prompts.json``), or text with one prompt on each line.
        split: 'train', 'held_out', or None for all; text files have no splits.
        themes: of a JSON file; all by default.

    Raises:
        DataError: the file is missing, damaged, empty, or holds a prompt twice.
        ConfigError: no such split or theme.

    Example:
        >>> len(read_prompts()), len(read_prompts(split='held_out'))
        (56, 16)
    """
    path = EMBEDDED if file is None else Path(file)
    if split is not None and split not in SPLITS:
        raise ConfigError(f'Expected split to be one of {SPLITS} or None but got {split!r}. Choose one of these.')
    try:
        text = path.read_text()
        prompts = _of_themes(json.loads(text), split, themes) if path.suffix == '.json' else _of_lines(text)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f'Expected prompts in {path} but got {type(error).__name__}: {error}. Write one on each line of a .txt, or '
            'JSON as in kdplugin/datasets/prompts.json.'
        ) from error
    twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if twice or not prompts:
        raise DataError(
            f'Expected prompts in {path}, each once, but got {f"{twice[0]!r} twice" if twice else "none"}. Correct it.'
        )
    return prompts


def _of_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_themes(content: Any, split: str | None, themes: Sequence[str] | None) -> list[str]:
    for theme in themes or ():
        if theme not in content:
            raise ConfigError(
                f'Expected themes of {list(content)} but got {theme!r}.{did_you_mean(theme, content)} Correct it.'
            )
    chosen = content if themes is None else themes
    splits = SPLITS if split is None else (split,)
    return [str(prompt) for theme in chosen for part in splits for prompt in content[theme][part]]


@DATASETS.register_module()
class PromptDataset(Dataset):
    """Prompts one by one, as dict(prompt=text), with image latents beside them where there are any.

    Args:
        prompts: a file, see ``read_prompts``; the embedded ones by default.
        split: 'train', 'held_out' or None for all.
        themes: some of the file's themes.
        latents: folder with a file 0.safetensors, 1.safetensors, ... for each prompt of the file in order, each with a
            tensor 'latents' (C, H, W) of the image that the prompt describes, as the teacher's VAE encodes it,
            normalised.
        repeat: how often an epoch goes through the prompts.

    Raises:
        DataError: see ``read_prompts``; latents that are missing or no (C, H, W).
    """

    def __init__(
        self,
        prompts: str | None = None,
        split: str | None = 'train',
        themes: Sequence[str] | None = None,
        latents: str | None = None,
        repeat: int = 1,
    ) -> None:
        if repeat < 1:
            raise ConfigError(f'Expected repeat of at least 1 but got {repeat}. Leave it out for one round.')
        self.prompts = read_prompts(prompts, split, themes)
        self.repeat = repeat
        everything = read_prompts(prompts, None)
        self._files = {
            prompt: Path(latents) / f'{everything.index(prompt)}.safetensors' for prompt in self.prompts if latents
        }
        missing = [str(file) for file in self._files.values() if not file.is_file()]
        if missing:
            raise DataError(
                f'Expected image latents for each of {len(self.prompts)} prompts but {len(missing)} files are missing, '
                f'such as {missing[0]}. Encode the images, or leave latents out to start from noise.'
            )

    def __len__(self) -> int:
        return self.repeat * len(self.prompts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        prompt = self.prompts[index % len(self.prompts)]
        file = self._files.get(prompt)
        return dict(prompt=prompt) if file is None else dict(prompt=prompt, latents=self._latents(file))

    @staticmethod
    def _latents(file: Path) -> Tensor:
        tensors = read_checkpoint(file)['state_dict']
        found = tensors.get(LATENTS)
        if found is None or found.ndim != 3:
            shapes = {name: tuple(value.shape) for name, value in tensors.items()}
            raise DataError(
                f"Expected a tensor 'latents' (C, H, W) in {file} but got {shapes}. Encode the image again."
            )
        return found.float()
