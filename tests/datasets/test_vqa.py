from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kdplugin.datasets.vqa import LoadAnnotationVQA, tokens_of
from kdplugin.errors import ConfigError, DataError

FRAME = dict(folder='v1/Accident_Town03', frame_idx=7)
DIALOGUE = [('What is ahead?', 'A car.'), ('And now?', 'Stop.')]


def write(root: Path, content: Any) -> None:
    (root / 'Accident_Town03').mkdir(exist_ok=True)
    (root / 'Accident_Town03/00007.json').write_text(json.dumps(content))


def pairs() -> list[list[dict[str, str]]]:
    return [[{'from': 'human', 'value': asked}, {'from': 'gpt', 'value': said}] for asked, said in DIALOGUE]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer of transformers that knows the dialogue's words, with a token at the beginning as LLaMA has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        '<unk>',
        '<s>',
        '</s>',
        'USER',
        'ASSISTANT',
        ':',
        'What',
        'is',
        'ahead',
        '?',
        'A',
        'car',
        '.',
        'And',
        'now',
    ]
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(dict.fromkeys([*words, 'Stop']))}, '<unk>')
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    folder = tmp_path_factory.mktemp('tokenizer')
    special = dict(unk_token='<unk>', bos_token='<s>', eos_token='</s>')  # noqa: S106
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return str(folder)


def test_without_a_tokenizer_labels_are_ignored_and_no_file_is_read() -> None:
    found = LoadAnnotationVQA('nowhere')(dict(FRAME))
    assert found['input_ids'].tolist() == [0]
    assert found['vlm_labels'].tolist() == [-100]
    assert found['vlm_attn_mask'].tolist() == [False]
    assert found['folder'] == FRAME['folder']
    logits = torch.randn(1, 5, requires_grad=True)
    loss = F.cross_entropy(logits, found['vlm_labels'], reduction='sum')
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.count_nonzero(logits.grad) == 0


def test_questions_are_ignored_and_answers_are_learned(tokenizer: str, tmp_path: Path) -> None:
    write(tmp_path, pairs())
    transform = LoadAnnotationVQA(str(tmp_path), tokenizer=tokenizer)
    found = transform(dict(FRAME))
    ids, labels = found['input_ids'], found['vlm_labels']
    text = ' '.join(transform.tokenizer.convert_ids_to_tokens(ids.tolist()))
    assert text == '<s> USER : What is ahead ? ASSISTANT : A car . </s> USER : And now ? ASSISTANT : Stop . </s>'
    learned = transform.tokenizer.convert_ids_to_tokens(ids[labels != -100].tolist())
    assert learned == ['A', 'car', '.', '</s>', 'Stop', '.', '</s>']
    assert torch.equal(labels[labels != -100], ids[labels != -100])
    assert found['vlm_attn_mask'].all()
    assert tuple(found['vlm_attn_mask'].shape) == tuple(ids.shape)
    short, _ = tokens_of(DIALOGUE, transform.tokenizer, 5)
    assert torch.equal(short, ids[:5])


def test_a_missing_file_is_an_error_or_ignored(tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Accident_Town03/00007.json does not exist. .* missing='ignore'"):
        LoadAnnotationVQA(str(tmp_path), tokenizer=tokenizer)(dict(FRAME))
    found = LoadAnnotationVQA(str(tmp_path), tokenizer=tokenizer, missing='ignore')(dict(FRAME))
    assert found['vlm_labels'].tolist() == [-100]
    write(tmp_path, [])
    assert LoadAnnotationVQA(str(tmp_path), tokenizer=tokenizer)(dict(FRAME))['vlm_labels'].tolist() == [-100]


def test_what_is_no_dialogue_or_tokenizer_is_told(tokenizer: str, tmp_path: Path) -> None:
    write(tmp_path, [[{'from': 'human', 'value': 'What?'}]])
    with pytest.raises(DataError, match=r'"from": "gpt".* but got KeyError'):
        LoadAnnotationVQA(str(tmp_path), tokenizer=tokenizer)(dict(FRAME))
    with pytest.raises(ConfigError, match="Expected missing 'error' or 'ignore' but got 'skip'"):
        LoadAnnotationVQA('x', missing='skip')
    with pytest.raises(ConfigError, match='Expected a tokenizer in'):
        LoadAnnotationVQA('x', tokenizer=str(tmp_path))
