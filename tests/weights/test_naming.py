"""Names: natural order, one spelling for many, parts of attention, and how alike two paths are."""

from __future__ import annotations

import numpy as np
import pytest

from kdplugin.weights.naming import attention_part, name_similarity, natural_key, split_leaf, tokens

PATHS = ['stem.conv1', 'blocks.0.attn.qkv', 'blocks.0.norm1', 'blocks.1.mlp.fc1', 'decode_head.conv_seg', 'head']


def test_numbers_inside_names_are_ordered_by_value() -> None:
    names = ['blocks.10.fc2', 'blocks.2.fc10', 'blocks.2.fc9', 'blocks.1', 'a10b2', 'a10b1', 'a9b3']
    assert sorted(names, key=natural_key) == [
        'a9b3', 'a10b1', 'a10b2', 'blocks.1', 'blocks.2.fc9', 'blocks.2.fc10', 'blocks.10.fc2',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('vit.encoder.layer.0.layernorm_before', ('vit', 'enc', 'block', 'norm', 'before')),
        ('model.layer4.2.bn3', ('model', 'block', 'norm')),
        ('selfAttn.outProj', ('self', 'attn', 'proj', 'proj')),
        ('encoder.LayerNorm', ('enc', 'norm')),
        ('encoder.layer_norm', ('enc', 'norm')),
        ('0.1.2', ()),
        ('', ()),
    ],
)
def test_words_have_one_spelling_and_no_numbers(path: str, words: tuple[str, ...]) -> None:
    assert tokens(path) == words


def test_libraries_agree_on_words() -> None:
    assert tokens('blocks.3.norm1') == tokens('layers.7.ln_1') == tokens('stage.0.layernorm')
    assert tokens('attention.query') == tokens('attn.q')


@pytest.mark.parametrize('path', ['encoder_attn', 'EncDecAttention', 'crossattention', 'encoder_decoder_attention'])
def test_attention_to_the_encoder_is_cross_attention(path: str) -> None:
    assert tokens(f'decoder.layers.0.{path}.key')[:3] == ('dec', 'block', 'cross')
    assert 'cross' not in tokens('encoder.attn') + tokens('encoder.attention')


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        ('blocks.0.norm1.weight', ('blocks.0.norm1', 'weight')),
        ('norm.gamma', ('norm', 'weight')),
        ('norm.beta', ('norm', 'bias')),
        ('bn.running_mean', ('bn', 'mean')),
        ('bn.running_var', ('bn', 'var')),
        ('bn.num_batches_tracked', ('bn', 'count')),
        ('attn.in_proj_weight', ('attn.in_proj', 'weight')),
        ('attn.in_proj_bias', ('attn.in_proj', 'bias')),
        ('attn.q_bias', ('attn.q', 'bias')),
        ('in_proj_weight', ('in_proj', 'weight')),
        ('cls_token', ('cls_token', 'weight')),
        ('blocks.0.layer_scale', ('blocks.0.layer_scale', 'weight')),
        ('rel_bias', ('rel_bias', 'weight')),
        ('weight', ('', 'weight')),
    ],
)
def test_module_and_role(name: str, split: tuple[str, str]) -> None:
    assert split_leaf(name) == split


@pytest.mark.parametrize(
    ('path', 'part'),
    [
        ('blocks.0.attn.qkv', ('blocks.0.attn', 'qkv')),
        ('h.3.attn.c_attn', ('h.3.attn', 'qkv')),
        ('attn.in_proj', ('attn', 'qkv')),
        ('attn1.to_kv', ('attn1', 'kv')),
        ('attention.self.query', ('attention.self', 'q')),
        ('self_attn.K_proj', ('self_attn', 'k')),
        ('attn.wv', ('attn', 'v')),
        ('qkv', ('', 'qkv')),
        ('attn.proj', None),
        ('blocks.0.q.norm', None),
    ],
)
def test_part_of_attention(path: str, part: tuple[str, str] | None) -> None:
    assert attention_part(path) == part


def test_similarity_is_one_at_identity_and_within_bounds() -> None:
    scores = name_similarity(PATHS, PATHS)
    assert scores.shape == (6, 6)
    assert np.diag(scores) == pytest.approx(1.0)
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert (scores[~np.eye(6, dtype=bool)] < 1).all()


def test_similarity_is_symmetric() -> None:
    others = ['encoder.0.attention.in_proj', 'conv_stem', 'layers.0.ln_1', 'classifier', 'a.b.c', '7.8']
    assert name_similarity(PATHS, others) == pytest.approx(name_similarity(others, PATHS).T, abs=1e-6)


def test_nothing_in_common_is_zero_and_numbers_alone_say_nothing() -> None:
    assert name_similarity(['stem.conv'], ['head.fc']).item() == 0
    assert name_similarity(['0.1'], ['0.1']).item() == 0


def test_rare_words_and_last_words_count_more() -> None:
    scores = name_similarity(
        ['model.blocks.attn.proj'], ['model.blocks.attn.fc', 'net.stages.attn.proj', 'model.blocks.x.y']
    )[0]
    assert scores[1] > scores[0] > scores[2]


def test_words_of_one_side_alone_may_be_left_out() -> None:
    """'fc', 'score' and 'pred' say nothing about which is which."""
    left, right = ['h.fc_cls', 'h.fc_reg'], ['p.bbox_pred', 'p.cls_score']
    assert name_similarity(left, right).max() < 0.6
    assert name_similarity(left, right, shared_words=True) == pytest.approx(np.array([[0, 1], [1, 0]]))
    assert not name_similarity(['a.b'], ['c.d'], shared_words=True).any()


def test_what_comes_after_attention_is_not_called_like_attention() -> None:
    llama, other = ['attention_norm', 'ffn_norm'], ['input_layernorm', 'post_attention_layernorm']
    likeness = name_similarity(llama, other)
    assert likeness[0, 1] == pytest.approx(likeness[0, 0])
    assert tokens('post_attention_layernorm') == ('postattention', 'norm')
