"""What the name of a tensor says: words, order, and which part of an attention layer it belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

LEAVES = {
    'weight': 'weight', 'bias': 'bias', 'gamma': 'weight', 'beta': 'bias', 'running_mean': 'mean', 'running_var': 'var',
    'num_batches_tracked': 'count',
}  # fmt: skip
"""Last part of a name -> role of the tensor inside its module."""

SYNONYMS = {
    'norm': 'norm ln bn gn layernorm batchnorm groupnorm rmsnorm',
    'fc': 'fc linear lin dense',
    'conv': 'conv convs conv2d convolution',
    'embed': 'embed embedding embeddings emb embedder wte',
    'pos': 'pos position positional positions wpe',
    'cls': 'cls class classification classifier classes logits',
    'reg': 'reg regression regressor bbox box boxes',
    'proj': 'proj projection projector out o',
    'attn': 'attn attention mha msa',
    'block': 'block blocks layer layers resblocks stage stages',
    'mlp': 'mlp ffn feedforward',
    'head': 'head heads predictor decode',
    'aux': 'aux auxiliary',
    'down': 'down downsample downsampling shortcut merging reduction',
    'dec': 'dec decoder',
    'enc': 'enc encoder',
    'q': 'q query wq',
    'k': 'k key wk',
    'v': 'v value wv',
    'stem': 'stem patch patches conv1',
    'cross': 'cross encdec multihead',
    'gate': 'gate g',
    'scale': 'scale ls lambda layerscale',
    'tgt': 'tgt target',
    'vision': 'vision visual image img',
}
WORD = {word: meaning for meaning, words in SYNONYMS.items() for word in words.split()}

PARTS = {
    'q': ('q', 'query', 'to_q', 'q_proj', 'wq', 'q_lin', 'query_proj', 'q_linear', 'linear_q'),
    'k': ('k', 'key', 'to_k', 'k_proj', 'wk', 'k_lin', 'key_proj', 'k_linear', 'linear_k'),
    'v': ('v', 'value', 'to_v', 'v_proj', 'wv', 'v_lin', 'value_proj', 'v_linear', 'linear_v'),
    'qkv': ('qkv', 'in_proj', 'to_qkv', 'wqkv', 'qkv_proj', 'c_attn', 'query_key_value'),
    'kv': ('kv', 'to_kv', 'kv_proj', 'wkv', 'key_value', 'kv_linear'),
    'gate': ('gate_proj',),
    'up': ('up_proj',),
    'gate_up': ('gate_up_proj',),
}
"""Names of layers in attention and gated modules, by what they compute; fused ones hold their parts in that order."""
PART_OF = {name: part for part, names in PARTS.items() for name in names}


@lru_cache(maxsize=100_000)
def tokens(path: str) -> tuple[str, ...]:
    """Return the words of a dotted name, lower case and in one spelling; numbers are left out.

    What comes after attention ('post_attention_layernorm') is one word: it is not the norm of attention.

    Example:
        >>> tokens('vit.encoder.layer.0.layernorm_before')
        ('vit', 'enc', 'block', 'norm', 'before')
    """
    spaced = re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', path).lower().replace('layer_norm', 'layernorm')
    spaced = re.sub(r'(?<![a-z])post_(?=(self_)?att)', 'post', spaced)
    spaced = re.sub(r'(?<![a-z])(enc(oder)?_(dec(oder)?_)?|cross)(?=att)', 'cross_', spaced)
    words = re.findall(r'[a-z]+\d*(?=[^a-z\d]|$)|[a-z]+', spaced)
    return tuple(WORD.get(word, WORD.get(bare, bare)) for word in words for bare in [word.rstrip('0123456789')])


@lru_cache(maxsize=100_000)
def natural_key(path: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that orders numbers inside names by value: 'blocks.2' before 'blocks.10'."""
    return tuple((0, int(part), '') if part.isdigit() else (1, 0, part) for part in re.split(r'(\d+)', path) if part)


def split_leaf(name: str) -> tuple[str, str]:
    """Split a tensor's name into its module's path and its role there.

    Parts of attention that are parameters of the attention module itself count as modules of their own:
    'attn.in_proj_bias' is the bias of 'attn.in_proj', 'attn.q_bias' that of 'attn.q'. Any other parameter without a
    usual last name ('cls_token') is a module with one weight.
    """
    path, _, leaf = name.rpartition('.')
    if leaf in LEAVES:
        return path, LEAVES[leaf]
    for ending in ('weight', 'bias'):
        part = leaf.removesuffix(f'_{ending}')
        if part != leaf and part in PART_OF:
            return f'{path}.{part}'.lstrip('.'), ending
    return name, 'weight'


def attention_part(path: str) -> tuple[str, str] | None:
    """Return the attention module of a layer and the part it computes (q, k, v, kv or qkv), or None."""
    parent, _, last = path.rpartition('.')
    part = PART_OF.get(last.lower())
    return (parent, part) if part else None


def name_similarity(first: Sequence[str], second: Sequence[str], *, shared_words: bool = False) -> NDArray[np.float32]:
    """Compare every path of one list with every path of another by their words.

    Args:
        shared_words: leave out words that one list alone has; they cannot tell which path of the other is meant.

    Returns:
        Matrix of len(first) x len(second) in 0 to 1: the Jaccard index of their words, where a word counts the more the
        fewer of the paths have it, and words near the end count double.
    """
    vocabulary: dict[str, int] = {}
    one, two = _counts(first, vocabulary), _counts(second, vocabulary)
    size = len(vocabulary)
    one.resize((len(first), size))
    two.resize((len(second), size))
    presence = np.asarray((one > 0).mean(axis=0) + (two > 0).mean(axis=0)).ravel() / 2
    weights = np.log(2.0 / np.maximum(presence, 1e-9)) + 0.1
    if shared_words:
        weights *= np.asarray((one > 0).sum(axis=0)).ravel() * np.asarray((two > 0).sum(axis=0)).ravel() > 0
    left, right = one @ sparse.diags(weights), two @ sparse.diags(weights)
    binary = (two > 0).astype(np.float64)
    # words are shared by few: the smaller of the two counts is taken as their mean over the shared words
    shared = (left @ binary.T + (one > 0).astype(np.float64) @ right.T).toarray() / 2
    total = np.asarray(left.sum(axis=1)) + np.asarray(right.sum(axis=1)).T - shared
    return np.clip(shared / np.maximum(total, 1e-9), 0, 1).astype(np.float32)


def _counts(paths: Sequence[str], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    rows, columns, values = [], [], []
    for row, path in enumerate(paths):
        words = tokens(path)
        for position, word in enumerate(dict.fromkeys(reversed(words))):
            rows.append(row)
            columns.append(vocabulary.setdefault(word, len(vocabulary)))
            values.append(2.0 if position < 2 else 1.0)
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(paths), len(vocabulary)))
