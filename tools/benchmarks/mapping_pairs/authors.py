"""Checkpoints under the names that their authors or older libraries gave them, mapped to a library's model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mapping_pairs.base import Built, Pair, Rule, State, first_output, renamed, split
from mapping_pairs.vit import QKV, hf_vit, images, timm_names, timm_vit


class UnderOtherNames(nn.Module):
    """A model's tensors in modules that are called otherwise and never run; the model itself computes."""

    def __init__(self, model: nn.Module, *rules: Rule) -> None:
        super().__init__()
        self.__dict__['model'] = model
        state = model.state_dict(keep_vars=True)
        self.__dict__['names'] = dict(zip(state, renamed(state, *rules), strict=True))
        for old, new in self.names.items():
            *path, leaf = new.split('.')
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            if isinstance(state[old], nn.Parameter):
                place.register_parameter(leaf, state[old])
            else:
                place.register_buffer(leaf, state[old])

    def forward(self, *inputs: Any, **named: Any) -> Any:
        self.model.eval()
        state = self.state_dict()
        return functional_call(self.model, {old: state[new] for old, new in self.names.items()}, inputs, named)


HUB_VIT: tuple[Rule, ...] = (
    (r'^vit\.layers', 'vit.encoder.layer'),
    (r'attention\.q_proj', 'attention.attention.query'),
    (r'attention\.k_proj', 'attention.attention.key'),
    (r'attention\.v_proj', 'attention.attention.value'),
    (r'attention\.o_proj', 'attention.output.dense'),
    (r'mlp\.fc1', 'intermediate.dense'),
    (r'mlp\.fc2', 'output.dense'),
)
"""What the files on the hub call the tensors of Hugging Face's ViT."""


def hub_to_timm(tiny: bool) -> Built:
    return UnderOtherNames(hf_vit(tiny), *HUB_VIT), timm_vit(tiny), images(tiny)


def hub_to_hf(tiny: bool) -> Built:
    return UnderOtherNames(hf_vit(tiny), *HUB_VIT), hf_vit(tiny), images(tiny)


def hub_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^vit\.encoder\.layer', 'vit.layers'),
        (r'attention\.attention\.query', 'attention.q_proj'),
        (r'attention\.attention\.key', 'attention.k_proj'),
        (r'attention\.attention\.value', 'attention.v_proj'),
        (r'attention\.output\.dense', 'attention.o_proj'),
        (r'intermediate\.dense', 'mlp.fc1'),
        (r'output\.dense', 'mlp.fc2'),
    )
    return renamed(state, *rules)


class ClipBlock(nn.Module):
    """A residual block of OpenAI's CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module('c_fc', nn.Linear(width, 4 * width))
        self.mlp.add_module('gelu', nn.GELU())
        self.mlp.add_module('c_proj', nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Clip(nn.Module):
    """The image tower of OpenAI's CLIP: position table without a batch axis, the last projection input first."""

    def __init__(self, width: int, heads: int, depth: int, size: int, patch: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(ClipBlock(width, heads) for _ in range(depth)))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer.get_submodule('resblocks')(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


def clip_to_hf(tiny: bool) -> Built:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, heads, depth, size, patch, out = (24, 3, 3, 32, 16, 12) if tiny else (768, 12, 12, 224, 32, 512)
    config = CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=patch,
        projection_dim=out,
        hidden_act='gelu',
    )
    source = Clip(width, heads, depth, size, patch, out)
    return source, CLIPVisionModelWithProjection(config), images(tiny)


def clip_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^proj', 'visual_projection.weight'),
        (r'^conv1', 'vision_model.embeddings.patch_embedding'),
        (r'^class_embedding', 'vision_model.embeddings.class_embedding'),
        (r'^positional_embedding', 'vision_model.embeddings.position_embedding.weight'),
        (r'^ln_pre', 'vision_model.pre_layrnorm'),
        (r'^ln_post', 'vision_model.post_layernorm'),
        (r'^transformer\.resblocks', 'vision_model.encoder.layers'),
        (r'ln_(\d)', r'layer_norm\1'),
        (r'attn\.in_proj_', 'attn.qkv.'),
        (r'\battn\.', 'self_attn.'),
        (r'mlp\.c_fc', 'mlp.fc1'),
        (r'mlp\.c_proj', 'mlp.fc2'),
    )
    result = split(renamed(state, *rules), QKV[0], ('q_proj', 'k_proj', 'v_proj'))
    result['visual_projection.weight'] = result['visual_projection.weight'].T
    return result


WAN: tuple[Rule, ...] = (
    (r'^condition_embedder\.time_embedder\.linear_1', 'time_embedding.0'),
    (r'^condition_embedder\.time_embedder\.linear_2', 'time_embedding.2'),
    (r'^condition_embedder\.time_proj', 'time_projection.1'),
    (r'^condition_embedder\.text_embedder\.linear_1', 'text_embedding.0'),
    (r'^condition_embedder\.text_embedder\.linear_2', 'text_embedding.2'),
    (r'^scale_shift_table', 'head.modulation'),
    (r'^proj_out', 'head.head'),
    (r'scale_shift_table', 'modulation'),
    (r'attn1\.', 'self_attn.'),
    (r'attn2\.', 'cross_attn.'),
    (r'to_([qkv])', r'\1'),
    (r'to_out\.0', 'o'),
    (r'norm2', 'norm3'),
    (r'ffn\.net\.0\.proj', 'ffn.0'),
    (r'ffn\.net\.2', 'ffn.2'),
)
"""Wan's own names from those of diffusers."""


def wan(tiny: bool) -> nn.Module:
    from diffusers import WanTransformer3DModel

    heads, depth = (2, 2) if tiny else (4, 30)
    sizes = dict(ffn_dim=64, text_dim=40, freq_dim=16, num_layers=depth)
    return cast(nn.Module, WanTransformer3DModel(num_attention_heads=heads, attention_head_dim=12, **sizes))


def wan_inputs() -> dict[str, Tensor]:
    return dict(
        hidden_states=torch.randn(1, 16, 1, 4, 4),
        timestep=torch.tensor([3]),
        encoder_hidden_states=torch.randn(1, 5, 40),
    )


def wan_to_own(tiny: bool) -> Built:
    return wan(tiny), UnderOtherNames(wan(tiny), *WAN), wan_inputs()


def wan_from_own(tiny: bool) -> Built:
    return UnderOtherNames(wan(tiny), *WAN), wan(tiny), wan_inputs()


def wan_names_back(state: State) -> dict[str, Tensor]:
    names = list(wan(len([name for name in state if name.endswith('norm3.weight')]) == 2).state_dict())
    own = renamed({name: torch.empty(0) for name in names}, *WAN)
    return {name: state[new] for name, new in zip(names, own, strict=True)}


HUGGING_FACE = ('transformers',)
PAIRS = (
    Pair('HF ViT as stored on the hub -> timm', hub_to_timm, lambda s: timm_names(hub_names(s)), needs=HUGGING_FACE),
    Pair('HF ViT as stored on the hub -> HF', hub_to_hf, hub_names, needs=HUGGING_FACE),
    Pair('OpenAI CLIP ViT-B/32 -> HF', clip_to_hf, clip_names, target_outputs=first_output, needs=HUGGING_FACE),
    Pair('diffusers Wan -> its own names', wan_to_own, lambda s: renamed(s, *WAN), needs=('diffusers',)),
    Pair('Wan under its own names -> diffusers', wan_from_own, wan_names_back, needs=('diffusers',)),
)
