"""Encoded prompts: as diffusers' pipeline encodes them, once, and told apart from those of another encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from wan_fixtures import PROMPTS, TOKENS, pipeline

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.models.generators.text_encoder import EmbeddingCache, TextEncoder, clean

__all__ = ['pipeline']


def cached(encoder: TextEncoder, folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, encoder, encoder.fingerprint, encoder.max_length)


def test_prompts_are_encoded_as_the_pipeline_does(pipeline: Path, tmp_path: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
    from transformers import AutoTokenizer, UMT5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(pipeline / 'tokenizer')
    model = UMT5EncoderModel.from_pretrained(pipeline / 'text_encoder').eval()
    whole = WanPipeline(tokenizer, model, None, FlowMatchEulerDiscreteScheduler(), None)
    prompts = [PROMPTS[0], 'a  short\none', '']
    expected, _ = whole.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS)
    found = cached(TextEncoder(pipeline, max_length=TOKENS, dtype='float32'), tmp_path)(prompts)
    torch.testing.assert_close(found, expected.detach())
    assert found.shape == (3, TOKENS, 32)
    assert not found[2, 1:].any()
    assert found[1, 1:].any()


def test_the_encoder_is_asked_once_for_each_prompt(tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(prompts: list[str]) -> list[torch.Tensor]:
        asked.extend(prompts)
        return [torch.full((len(prompt), 2), float(len(prompt))) for prompt in prompts]

    cache = EmbeddingCache(tmp_path, encode, 'one', 4)
    first = cache(['ab', 'abc', 'ab'])
    assert asked == ['ab', 'abc']
    assert torch.equal(first, cache(['ab', 'abc', 'ab']))
    assert cache.fill(['abc', 'a']) == 1
    assert first[0].tolist() == [[2, 2], [2, 2], [0, 0], [0, 0]]
    again = EmbeddingCache(tmp_path, encode, 'another', 4)
    again(['ab'])
    assert asked == ['ab', 'abc', 'a', 'ab']


def test_other_files_length_or_type_make_another_fingerprint(pipeline: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'copy'
    for part in ('text_encoder', 'tokenizer'):
        shutil.copytree(pipeline / part, copy / part)
    prints = [TextEncoder(pipeline, max_length=8).fingerprint, TextEncoder(copy, max_length=8).fingerprint]
    assert prints[0] == prints[1]
    weights = copy / 'text_encoder' / 'model.safetensors'
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    others = [
        TextEncoder(copy, max_length=8),
        TextEncoder(pipeline, max_length=9),
        TextEncoder(pipeline, max_length=8, dtype='float16'),
    ]
    assert len({prints[0], *(other.fingerprint for other in others)}) == 4


def test_it_is_frozen_and_can_be_let_go(pipeline: Path) -> None:
    encoder = TextEncoder(pipeline, max_length=TOKENS, dtype='bfloat16')
    (tokens,) = encoder(['lamp'])
    assert tokens.dtype == torch.bfloat16
    assert not tokens.requires_grad
    assert encoder._loaded is not None
    assert not any(value.requires_grad for value in encoder._loaded[1].parameters())
    encoder.release()
    assert encoder._loaded is None
    assert torch.equal(encoder(['lamp'])[0], tokens)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, lambda prompts: [torch.zeros(1, 2) for _ in prompts], 'one', 4)
    cache.fill(['a'])
    cache.path('a').write_bytes(b'no tensors')
    with pytest.raises(CheckpointError, match=str(cache.path('a'))):
        cache(['a'])


def test_what_is_missing_is_named(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r'Expected text_encoder/ in .* but there is none\. Give the folder of a whole'
    ):
        TextEncoder(tmp_path)
    with pytest.raises(ConfigError, match=r"Expected a dtype of \['float32', 'bfloat16', 'float16'\] but got 'int8'"):
        TextEncoder(pipeline, dtype='int8')
    (tmp_path / 'text_encoder').mkdir()
    (tmp_path / 'tokenizer').mkdir()
    with pytest.raises(CheckpointError, match=r'Expected a UMT5 encoder and its tokenizer in .* but got'):
        TextEncoder(tmp_path)(['a'])


def test_prompts_are_cleaned() -> None:
    assert clean(' a&amp;amp;b \n c ') == 'a&b c'
