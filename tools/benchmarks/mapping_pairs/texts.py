"""Text models: grouped and fused attention, gates, encoders and decoders, two towers of one width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.authors import UnderOtherNames
from mapping_pairs.base import Built, Pair, Rule, State, first_output, fuse, renamed, split
from mapping_pairs.vit import QKV

SIZES: dict[str, Any] = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96)
BASE: dict[str, Any] = dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768)


def words(count: int = 60) -> Tensor:
    return torch.randint(3, count, (2, 9))


def sized(tiny: bool) -> dict[str, Any]:
    return {**(SIZES if tiny else BASE), 'vocab_size': 60}


def roberta(tiny: bool) -> Built:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    target = RobertaModel(RobertaConfig(**sized(tiny), layer_norm_eps=1e-12, pad_token_id=-1))
    inputs = dict(input_ids=words(), token_type_ids=torch.ones(2, 9).long(), position_ids=torch.arange(9)[None])
    return BertModel(BertConfig(**sized(tiny))), target, inputs


def distilbert(tiny: bool) -> Built:
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    own = sized(tiny)
    config = DistilBertConfig(
        dim=own['hidden_size'], n_layers=own['num_hidden_layers'], n_heads=3, hidden_dim=own['intermediate_size'],
        vocab_size=60,
    )  # fmt: skip
    return BertModel(BertConfig(**own)), DistilBertModel(config), {'input_ids': words()}


def distilbert_names(state: State) -> dict[str, Tensor]:
    """Return DistilBERT's tensors: no types of tokens, no pooler."""
    rules = (
        (r'^encoder\.', 'transformer.'),
        (r'attention\.self\.query', 'attention.q_lin'),
        (r'attention\.self\.key', 'attention.k_lin'),
        (r'attention\.self\.value', 'attention.v_lin'),
        (r'attention\.output\.dense', 'attention.out_lin'),
        (r'attention\.output\.LayerNorm', 'sa_layer_norm'),
        (r'intermediate\.dense', 'ffn.lin1'),
        (r'output\.dense', 'ffn.lin2'),
        (r'output\.LayerNorm', 'output_layer_norm'),
    )
    return renamed({k: v for k, v in state.items() if 'token_type' not in k and 'pooler' not in k}, *rules)


def without_types(module: Any, inputs: Any) -> Tensor:
    module.embeddings.token_type_embeddings.weight.data.zero_()
    return first_output(module, inputs)


def phi3(tiny: bool) -> Built:
    """Return Llama and Phi-3 with fewer keys and values than queries; Phi-3 fuses those, and gates."""
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

    sizes = {**sized(tiny), 'num_key_value_heads': 1}
    target = Phi3ForCausalLM(Phi3Config(**sizes, pad_token_id=0, eos_token_id=1, bos_token_id=1, rms_norm_eps=1e-6))
    return LlamaForCausalLM(LlamaConfig(**sizes)), target, {'input_ids': words()}


def phi3_names(state: State) -> dict[str, Tensor]:
    result = fuse(state, QKV[1], 'qkv_proj')
    for name in [name for name in result if 'gate_proj' in name]:
        gates, values = result.pop(name), result.pop(name.replace('gate_proj', 'up_proj'))
        result[name.replace('gate_proj', 'gate_up_proj')] = torch.cat([gates, values])
    return result


def neox(tiny: bool) -> Built:
    """Return GPT-2, which fuses all queries, keys and values, and GPT-NeoX, which fuses head by head."""
    from transformers import GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXModel

    own = sized(tiny)
    sizes = dict(n_embd=own['hidden_size'], n_layer=own['num_hidden_layers'], n_head=3, vocab_size=60)
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    target = GPTNeoXModel(GPTNeoXConfig(**own, use_parallel_residual=False, hidden_act='gelu_new', rotary_pct=0.01))
    return GPT2Model(config), target, {'input_ids': words()}


def neox_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^wte', 'embed_in'),
        (r'^h\.', 'layers.'),
        (r'^ln_f', 'final_layer_norm'),
        (r'ln_1', 'input_layernorm'),
        (r'ln_2', 'post_attention_layernorm'),
        (r'attn\.c_attn', 'attention.query_key_value'),
        (r'attn\.c_proj', 'attention.dense'),
        (r'mlp\.c_fc', 'mlp.dense_h_to_4h'),
        (r'mlp\.c_proj', 'mlp.dense_4h_to_h'),
    )
    result = renamed({k: v for k, v in state.items() if 'wpe' not in k}, *rules)
    for name, value in result.items():
        if value.ndim == 2 and 'embed' not in name:
            result[name] = value = value.T
        if 'query_key_value' in name:
            result[name] = value.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)
    return result


def without_positions(module: Any, inputs: Any) -> Tensor:
    module.wpe.weight.data.zero_()
    return first_output(module, inputs)


def without_rotation(module: Any, inputs: Any) -> Tensor:
    module.rotary_emb.inv_freq.zero_()
    return first_output(module, inputs)


def torch_transformer(tiny: bool) -> Built:
    """Return torch's encoder and decoder, and DETR's of Hugging Face, which split attention."""
    from mapping_pairs.detr import HFTransformer

    width, hidden, depth = (24, 48, 2) if tiny else (192, 768, 4)
    source = TorchTransformer(width, hidden, depth)
    inputs = torch.randn(1, 20, width), torch.randn(1, 20, width), torch.randn(1, 10, width)
    return source, HFTransformer(width, 3, hidden, depth), inputs


class TorchTransformer(nn.Module):
    """``nn.Transformer`` without last norm of the encoder, its positions added where DETR adds them: nowhere else."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.net = nn.Transformer(width, 3, depth, depth, hidden, batch_first=True)
        self.net.encoder.norm = None

    def forward(self, features: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        return self.net(features, torch.zeros_like(queries))


def detr_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^net\.', 'model.'),
        (r'multihead_attn', 'encoder_attn'),
        (r'attn\.in_proj_', 'attn.qkv.'),
        (r'attn\.out_proj', 'attn.o_proj'),
        (r'linear(\d)', r'mlp.fc\1'),
        (r'norm1', 'self_attn_layer_norm'),
        (r'^(model\.encoder.*)norm2', r'\1final_layer_norm'),
        (r'norm2', 'encoder_attn_layer_norm'),
        (r'norm3', 'final_layer_norm'),
        (r'^model\.decoder\.norm', 'model.decoder.layernorm'),
    )
    return split(renamed(state, *rules), QKV[0], ('q_proj', 'k_proj', 'v_proj'))


def no_positions(module: nn.Module, inputs: Any) -> Tensor:
    features, positions, queries = inputs
    return module(features, torch.zeros_like(positions), torch.zeros_like(queries)).flatten()


WHISPER: tuple[Rule, ...] = (
    (r'self_attn\.', 'attn.'),
    (r'encoder_attn\.', 'cross_attn.'),
    (r'q_proj', 'query'),
    (r'k_proj', 'key'),
    (r'v_proj', 'value'),
    (r'out_proj', 'out'),
    (r'self_attn_layer_norm', 'attn_ln'),
    (r'encoder_attn_layer_norm', 'cross_attn_ln'),
    (r'final_layer_norm', 'mlp_ln'),
    (r'\bfc1', 'mlp.0'),
    (r'\bfc2', 'mlp.2'),
    (r'encoder\.layer_norm', 'encoder.ln_post'),
    (r'decoder\.layer_norm', 'decoder.ln'),
    (r'\.layers\.', '.blocks.'),
    (r'decoder\.embed_tokens', 'decoder.token_embedding'),
    (r'embed_positions\.weight', 'positional_embedding'),
)
"""OpenAI's names of Whisper from Hugging Face's."""


def hf_whisper(tiny: bool) -> nn.Module:
    from transformers import WhisperConfig, WhisperModel

    width, depth = (24, 2) if tiny else (192, 4)
    sizes: dict[str, Any] = dict(vocab_size=60, d_model=width, num_mel_bins=8, max_source_positions=16)
    for side in ('encoder', 'decoder'):
        sizes |= {f'{side}_layers': depth, f'{side}_attention_heads': 3, f'{side}_ffn_dim': 4 * width}
    tokens = dict(pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1, max_target_positions=12)
    return WhisperModel(WhisperConfig(**sizes, **tokens))


def whisper(tiny: bool) -> Built:
    inputs = {'input_features': torch.randn(1, 8, 32), 'decoder_input_ids': words()[:1]}
    return UnderOtherNames(hf_whisper(tiny), *WHISPER), hf_whisper(tiny), inputs


def whisper_names(state: State) -> dict[str, Tensor]:
    depth = len([name for name in state if name.endswith('attn_ln.weight') and 'encoder' in name])
    names = list(hf_whisper(depth == 2).state_dict())
    own = renamed({name: torch.empty(0) for name in names}, *WHISPER)
    return {name: state[new] for name, new in zip(names, own, strict=True)}


NEEDS = ('transformers',)
PAIRS = (
    Pair('HF BERT -> HF RoBERTa', roberta, dict, first_output, first_output, needs=NEEDS),
    Pair('HF BERT -> HF DistilBERT', distilbert, distilbert_names, without_types, first_output, needs=NEEDS),
    Pair('HF Llama -> HF Phi-3', phi3, phi3_names, first_output, first_output, needs=NEEDS),
    Pair(
        'HF GPT-2 -> HF GPT-NeoX',
        neox,
        neox_names,
        without_positions,
        without_rotation,
        refusable=r'.*query_key_value.*',
        needs=NEEDS,
    ),
    Pair(
        'torch Transformer -> HF DETR encoder-decoder',
        torch_transformer,
        detr_names,
        target_outputs=no_positions,
        needs=NEEDS,
    ),
    Pair('OpenAI Whisper -> HF', whisper, whisper_names, first_output, first_output, needs=NEEDS),
)
