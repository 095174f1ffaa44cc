"""Questions and answers of Chat-B2D as token ids.

L token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from kdplugin.errors import ConfigError, DataError
from kdplugin.registry import TRANSFORMS

IGNORED = -100
QUESTION, ANSWER = 'USER: {} ASSISTANT:', ' {}'


@TRANSFORMS.register_module()
class LoadAnnotationVQA(BaseTransform):
    """Add a frame's dialogue: ``input_ids`` (L,), ``vlm_labels`` (L,) and ``vlm_attn_mask`` (L,).

    ORION trains its language model on ``<data_root>/<scenario>/<frame>.json`` of Chat-B2D: a list of pairs
    ``[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]``. Questions are labelled -100, which cross
    entropy leaves out; answers, with the tokenizer's end of sentence, are their own labels. Without a tokenizer, as a
    training of the backbone alone has it, there is one token that nobody attends to, labelled -100; no file is read.

    Args:
        data_root: folder of the split, such as 'data/chat-B2D/train'.
        tokenizer: of transformers, or a folder or name for ``AutoTokenizer``; None for none.
        max_length: tokens that are kept.
        missing: what to do about a frame without a file: 'error', or 'ignore' for labels of -100.

    Raises:
        ConfigError: transformers is not installed, or an unknown ``missing``.
        DataError: a file is missing or no dialogue.
    """

    def __init__(self, data_root: str, tokenizer: Any = None, max_length: int = 2048, missing: str = 'error') -> None:
        if missing not in ('error', 'ignore'):
            raise ConfigError(f"Expected missing 'error' or 'ignore' but got {missing!r}. Write 'error'.")
        self.data_root, self.max_length, self.missing = Path(data_root), max_length, missing
        self.tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        ids, labels = self._tokens(results)
        return {**results, 'input_ids': ids, 'vlm_labels': labels, 'vlm_attn_mask': labels_mask(ids, labels)}

    def _tokens(self, results: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if self.tokenizer is None:
            return ignored_tokens()
        file = self.data_root / Path(results['folder']).name / f'{results["frame_idx"]:05d}.json'
        if not file.is_file():
            if self.missing == 'ignore':
                return ignored_tokens()
            raise DataError(f"Expected a dialogue but {file} does not exist. Check data_root, or set missing='ignore'.")
        return tokens_of(read_dialogue(file), self.tokenizer, self.max_length)


def ignored_tokens() -> tuple[Tensor, Tensor]:
    """Return ids and labels of a dialogue that says nothing."""
    return torch.zeros(1, dtype=torch.long), torch.full((1,), IGNORED)


def labels_mask(ids: Tensor, labels: Tensor) -> Tensor:
    """Return which tokens are attended to: all of a dialogue with an answer, none of one without."""
    return torch.full_like(ids, bool((labels != IGNORED).any()), dtype=torch.bool)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of transformers that a folder or a name stands for; code from its files is not run.

    Raises:
        ConfigError: transformers is not installed, or finds none.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ConfigError('Expected transformers for a tokenizer but it is not installed. Install it.') from None
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f'Expected a tokenizer in {name} but got: {first}. Correct tokenizer, or write None.'
        ) from None


def read_dialogue(file: Path) -> list[tuple[str, str]]:
    """Return the questions and answers of a file.

    Raises:
        DataError: it is something else.
    """
    try:
        pairs = json.loads(file.read_text(encoding='utf-8'))
        turns = [({one['from']: one['value'] for one in pair}) for pair in pairs]
        return [(str(turn['human']), str(turn['gpt'])) for turn in turns]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'Expected [[{{"from": "human", "value": ...}}, {{"from": "gpt", "value": ...}}], ...] in {file} but got '
            f'{type(error).__name__}: {error}. Correct the file.'
        ) from None


def tokens_of(dialogue: list[tuple[str, str]], tokenizer: Any, max_length: int) -> tuple[Tensor, Tensor]:
    """Return ids (L,) and labels (L,) of a dialogue; questions are labelled -100."""
    ids: list[int] = []
    labels: list[int] = []
    for question, answer in dialogue:
        asked = tokenizer(QUESTION.format(question), add_special_tokens=not ids)['input_ids']
        said = tokenizer(ANSWER.format(answer) + (tokenizer.eos_token or ''), add_special_tokens=False)['input_ids']
        ids += [*asked, *said]
        labels += [IGNORED] * len(asked) + said
    if not ids:
        return ignored_tokens()
    return torch.tensor(ids[:max_length]), torch.tensor(labels[:max_length])
