"""Prompts as a text encoder sees them, kept on disk so that the encoder is needed once.

N prompt, M token, D width of the encoder.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.reading.io import read_checkpoint, write_checkpoint

EDGE = 1 << 20
"""Bytes of each end of a large file that its fingerprint looks at."""
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class TextEncoder:
    """UMT5 and its tokenizer, loaded when first needed; outside of every module tree, frozen.

    Encodes as diffusers' ``WanPipeline``: cut at ``max_length`` tokens, zeros behind the last one.

    Args:
        folder: of a diffusers pipeline, with ``text_encoder/`` and ``tokenizer/``.
        max_length: M.
        dtype: of the encoder, 'float32', 'bfloat16' or 'float16'.
        device: where it runs.

    Raises:
        CheckpointError: the folder lacks a part.
    """

    def __init__(
        self, folder: str | Path, *, max_length: int = 512, dtype: str = 'bfloat16', device: str = 'cpu'
    ) -> None:
        self.folder, self.max_length, self.device = Path(folder), max_length, device
        if dtype not in DTYPES:
            raise ConfigError(f'Expected a dtype of {list(DTYPES)} but got {dtype!r}. Choose one of these.')
        self.dtype = DTYPES[dtype]
        for part in ('text_encoder', 'tokenizer'):
            if not (self.folder / part).is_dir():
                raise CheckpointError(
                    f'Expected {part}/ in {self.folder} but there is none. Give the folder of a whole pipeline, or '
                    'text_encoder=dict(path=...).'
                )
        self._loaded: tuple[Any, nn.Module] | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of what the encoding depends on: files (of large ones their ends), length and type."""
        digest = hashlib.sha256(f'{self.max_length} {self.dtype}'.encode())
        for part in ('text_encoder', 'tokenizer'):
            for path in sorted((self.folder / part).rglob('*')):
                if path.is_file():
                    digest.update(f'{path.relative_to(self.folder)} {path.stat().st_size}'.encode())
                    with path.open('rb') as file:
                        digest.update(file.read(EDGE))
                        file.seek(max(path.stat().st_size - EDGE, 0))
                        digest.update(file.read(EDGE))
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> list[Tensor]:
        """Return the encoded tokens (up to M, D) of each prompt."""
        tokenizer, model = self._load()
        found = tokenizer(
            [clean(prompt) for prompt in prompts], padding='max_length', max_length=self.max_length, truncation=True,
            add_special_tokens=True, return_attention_mask=True, return_tensors='pt',
        )  # fmt: skip
        mask = found.attention_mask.to(self.device)
        states = model(found.input_ids.to(self.device), mask).last_hidden_state
        return [state[:length].cpu() for state, length in zip(states, mask.sum(1).tolist(), strict=True)]

    def release(self) -> None:
        """Let go of the encoder's memory."""
        self._loaded = None

    def _load(self) -> tuple[Any, nn.Module]:
        if self._loaded is None:
            from transformers import AutoTokenizer, UMT5EncoderModel

            try:
                tokenizer = AutoTokenizer.from_pretrained(self.folder / 'tokenizer', local_files_only=True)
                model = UMT5EncoderModel.from_pretrained(
                    self.folder / 'text_encoder', dtype=self.dtype, local_files_only=True
                )
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f'Expected a UMT5 encoder and its tokenizer in {self.folder} but got {type(error).__name__}: '
                    f'{str(error).splitlines()[0]}. Copy text_encoder/ and tokenizer/ again.'
                ) from error
            self._loaded = tokenizer, model.requires_grad_(False).eval().to(self.device)
        return self._loaded


def clean(prompt: str) -> str:
    """Return a prompt without HTML entities and repeated blanks."""
    return re.sub(r'\s+', ' ', html.unescape(html.unescape(prompt))).strip()


class EmbeddingCache:
    """Encoded prompts, one safetensors file each, by a hash of the prompt and the encoder.

    Args:
        folder: where they lie; several processes may share it.
        encode: from prompts to tokens (up to M, D) each.
        fingerprint: of the encoder.
        max_length: M.
    """

    def __init__(
        self, folder: str | Path, encode: Callable[[Sequence[str]], list[Tensor]], fingerprint: str, max_length: int
    ) -> None:
        self.folder, self.max_length = Path(folder), max_length
        self._encode, self._fingerprint = encode, fingerprint

    def path(self, prompt: str) -> Path:
        """Return the file of a prompt."""
        text = json.dumps([self._fingerprint, clean(prompt)])
        return self.folder / f'{hashlib.sha256(text.encode()).hexdigest()}.safetensors'

    def fill(self, prompts: Sequence[str], batch: int = 8) -> int:
        """Encode the prompts that are not there yet and return how many these were."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self.path(prompt).is_file()]
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            for prompt, tokens in zip(part, self._encode(part), strict=True):
                write_checkpoint({'tokens': tokens}, self.path(prompt))
        return len(missing)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return prompts as the network reads them (N, M, D), zeros behind the last token.

        Raises:
            CheckpointError: a file is damaged.
        """
        self.fill(prompts)
        rows = []
        for prompt in prompts:
            tokens = read_checkpoint(self.path(prompt))['state_dict']['tokens']
            rows.append(torch.nn.functional.pad(tokens, (0, 0, 0, self.max_length - len(tokens))))
        return torch.stack(rows)
