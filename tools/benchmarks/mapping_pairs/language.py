"""Text transformers of Hugging Face and torch's own encoder: split and fused attention, transposed weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, first_output, fuse, renamed


def sizes(tiny: bool) -> tuple[int, int, int]:
    """Return width, heads, depth."""
    return (24, 3, 3) if tiny else (768, 12, 12)


def torch_encoder(tiny: bool, norm: bool, **settings: Any) -> nn.TransformerEncoder:
    width, heads, depth = sizes(tiny)
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True, **settings)
    last = nn.LayerNorm(width) if norm else None
    return nn.TransformerEncoder(layer, depth, norm=last, enable_nested_tensor=False)


def bert(tiny: bool) -> Built:
    """Return the encoder of BERT and torch's."""
    from transformers import BertConfig, BertModel

    width, heads, depth = sizes(tiny)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width
    )
    target = torch_encoder(tiny, False, activation='gelu', layer_norm_eps=config.layer_norm_eps)
    return BertModel(config).encoder, target, torch.randn(2, 9, width)


def bert_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^layer\.', 'layers.'),
        (r'attention\.self\.query', 'self_attn.q_proj'),
        (r'attention\.self\.key', 'self_attn.k_proj'),
        (r'attention\.self\.value', 'self_attn.v_proj'),
        (r'attention\.output\.dense', 'self_attn.out_proj'),
        (r'attention\.output\.LayerNorm', 'norm1'),
        (r'intermediate\.dense', 'linear1'),
        (r'output\.dense', 'linear2'),
        (r'output\.LayerNorm', 'norm2'),
    )
    return fuse(renamed(state, *rules), r'\b([qkv])_proj\.', 'in_proj_')


class Decoder(nn.Module):
    """A GPT of torch's own layers: embeddings, pre-norm layers under a causal mask, a last norm."""

    def __init__(self, tiny: bool, words: int, positions: int) -> None:
        super().__init__()
        width = sizes(tiny)[0]
        self.tokens = nn.Embedding(words, width)
        self.positions = nn.Embedding(positions, width)
        gelu = partial(F.gelu, approximate='tanh')  # as a module, torch's fast path would take it for the exact one
        self.layers = torch_encoder(tiny, True, activation=gelu, norm_first=True)

    def forward(self, words: Tensor) -> Tensor:
        x = self.tokens(words) + self.positions.weight[: words.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.layers(x, mask=mask, is_causal=True)


def gpt2(tiny: bool) -> Built:
    from transformers import GPT2Config, GPT2Model

    width, heads, depth = sizes(tiny)
    words, positions = (60, 16) if tiny else (50257, 1024)
    config = GPT2Config(vocab_size=words, n_positions=positions, n_embd=width, n_layer=depth, n_head=heads)
    return GPT2Model(config), Decoder(tiny, words, positions), torch.randint(0, words, (2, 9))


def gpt2_names(state: State) -> dict[str, Tensor]:
    """Return torch's tensors: Hugging Face stores GPT-2's matrices input first."""
    rules = (
        (r'^wte', 'tokens'),
        (r'^wpe', 'positions'),
        (r'^h\.', 'layers.layers.'),
        (r'^ln_f', 'layers.norm'),
        (r'ln_(\d)', r'norm\1'),
        (r'attn\.c_attn\.', 'self_attn.in_proj_'),
        (r'attn\.c_proj', 'self_attn.out_proj'),
        (r'mlp\.c_fc', 'linear1'),
        (r'mlp\.c_proj', 'linear2'),
    )
    result = renamed(state, *rules)
    return {name: value.T if value.ndim == 2 and 'layers' in name else value for name, value in result.items()}


PAIRS = (
    Pair(
        'HF BERT-base -> torch TransformerEncoder',
        bert,
        bert_names,
        source_outputs=first_output,
        needs=('transformers',),
    ),
    Pair(
        'HF GPT-2 -> torch TransformerEncoder',
        gpt2,
        gpt2_names,
        source_outputs=first_output,
        refusable=r'layers\.layers\.\d+\.self_attn\.out_proj\.weight',
        needs=('transformers',),
    ),
)
