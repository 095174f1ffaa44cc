"""Image encoders of many trainings: masked, contrastive and segmenting ones, with rotary or decomposed positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, Rule, State, first_output, fuse, renamed
from mapping_pairs.vit import QKV, images, timm_vit

SMALL: dict[str, Any] = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32
)
BASE: dict[str, Any] = dict(hidden_size=192, num_attention_heads=3, intermediate_size=768, image_size=224)
TIMM: tuple[Rule, ...] = (
    (r'^embeddings\.patch_embeddings?(\.projection)?', 'patch_embed.proj'),
    (r'^embeddings\.position_embeddings?(\.weight)?', 'pos_embed'),
    (r'^embeddings\.', ''),
    (r'^post_layernorm|^layernorm', 'norm'),
    (r'^(encoder\.layers|model\.layer|layers)', 'blocks'),
    (r'layernorm_before|layer_norm1', 'norm1'),
    (r'layernorm_after|layer_norm2', 'norm2'),
    (r'attention\.o_proj|self_attn\.out_proj', 'attn.proj'),
    (r'attention\.qkv|self_attn\.qkv', 'attn.qkv'),
)
"""timm's names of a vision transformer from those of Hugging Face's."""


def mae(tiny: bool) -> Built:
    from transformers import ViTMAEConfig, ViTMAEModel

    config = ViTMAEConfig(**(SMALL if tiny else BASE), mask_ratio=0.0, layer_norm_eps=1e-6)
    settings = {} if tiny else dict(embed_dim=192, num_heads=3)
    return ViTMAEModel(config), timm_vit(tiny, 'vit_base_patch16_224.mae', num_classes=0, **settings), images(tiny)


def hf_to_timm(state: State) -> dict[str, Tensor]:
    return renamed(fuse(state, QKV[1], 'qkv'), *TIMM)


def unshuffled(model: Any, inputs: Tensor) -> Tensor:
    """Return the tokens of a masked auto-encoder that masks nothing, in the order of the patches."""
    outputs = model(inputs)
    back = outputs.ids_restore[..., None].expand(-1, -1, outputs.last_hidden_state.shape[2])
    return outputs.last_hidden_state[:, 1:].gather(1, back).flatten()


def patches(model: Any, inputs: Tensor) -> Tensor:
    return model.forward_features(inputs)[:, 1:].flatten()


def siglip(tiny: bool) -> Built:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**(SMALL if tiny else BASE), hidden_act='gelu')
    settings = {} if tiny else dict(embed_dim=192, num_heads=3)
    target = timm_vit(tiny, 'vit_base_patch16_siglip_224', num_classes=0, **settings)
    return SiglipVisionModel(config), target, images(tiny)


def siglip_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: the pooling attention's queries apart, its keys and values fused."""
    rules = (
        (r'^head\.probe', 'attn_pool.latent'),
        (r'^head\.layernorm', 'attn_pool.norm'),
        (r'^head\.attention\.out_proj', 'attn_pool.proj'),
        (r'^head\.', 'attn_pool.'),
    )
    result = renamed(hf_to_timm(state), *rules)
    result['pos_embed'] = result['pos_embed'][None]
    for kind in ('weight', 'bias'):
        whole = result.pop(f'attn_pool.attention.in_proj_{kind}')
        queries = len(whole) // 3
        result[f'attn_pool.q.{kind}'], result[f'attn_pool.kv.{kind}'] = whole[:queries], whole[queries:]
    return result


def pooled(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).pooler_output.flatten()


def sam(tiny: bool) -> Built:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    width, depth, out = (24, 3, 8) if tiny else (192, 6, 256)
    config = SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=3,
        mlp_dim=4 * width,
        image_size=64,
        output_channels=out,
        window_size=2,
        global_attn_indexes=[1],
    )
    config._attn_implementation = 'eager'
    target = timm_vit(
        False,
        'samvit_base_patch16',
        embed_dim=width,
        depth=depth,
        num_heads=3,
        img_size=64,
        neck_chans=out,
        window_size=2,
        global_attn_indexes=(1,),
    )
    return SamVisionEncoder(config), target, images(False, 64)


def sam_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^patch_embed\.projection', 'patch_embed.proj'),
        (r'mlp\.lin', 'mlp.fc'),
        (r'^neck\.conv1', 'neck.0'),
        (r'^neck\.norm1', 'neck.1'),
        (r'^neck\.conv2', 'neck.2'),
        (r'^neck\.norm2', 'neck.3'),
    )
    return renamed(state, *TIMM, *rules)


def features(model: Any, inputs: Tensor) -> Tensor:
    return model.forward_features(inputs).flatten()


def dinov3(tiny: bool) -> Built:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(**(SMALL if tiny else BASE), num_register_tokens=4)
    settings = {} if tiny else dict(embed_dim=192, num_heads=3, img_size=224)
    return DINOv3ViTModel(config), timm_vit(tiny, 'vit_small_patch16_dinov3', **settings), images(tiny)


def dinov3_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: without a bias for fused queries, keys and values where it is told so."""
    rules = (
        (r'^register_tokens', 'reg_token'),
        (r'layer_scale(\d)\.lambda1', r'gamma_\1'),
        (r'mlp\.up_proj', 'mlp.fc1'),
        (r'mlp\.down_proj', 'mlp.fc2'),
    )
    kept = {name: v for name, v in state.items() if 'mask_token' not in name and '_proj.bias' not in name}
    own = {name: v for name, v in state.items() if name.endswith(('o_proj.bias', 'up_proj.bias', 'down_proj.bias'))}
    return renamed(fuse({**kept, **own}, QKV[1], 'qkv'), *TIMM, *rules)


def dinov3_source(model: Any, inputs: Tensor) -> Tensor:
    """Return the tokens without the biases of queries and values, which timm's model has not."""
    for layer in model.model.layer:
        for part in (layer.attention.q_proj, layer.attention.v_proj):
            part.bias.data.zero_()
    return model(inputs).last_hidden_state.flatten()


def msn(tiny: bool) -> Built:
    from transformers import ViTMSNConfig, ViTMSNModel

    settings = {} if tiny else dict(embed_dim=192, num_heads=3)
    target = timm_vit(tiny, 'vit_base_patch16_224', num_classes=0, **settings)
    return ViTMSNModel(ViTMSNConfig(**(SMALL if tiny else BASE))), target, images(tiny)


def msn_names(state: State) -> dict[str, Tensor]:
    return hf_to_timm({name: value for name, value in state.items() if 'mask_token' not in name})


def class_token(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).last_hidden_state[:, 0].flatten()


NEEDS = ('transformers',)
PAIRS = (
    Pair('HF ViT-MAE -> timm', mae, hf_to_timm, unshuffled, patches, needs=NEEDS),
    Pair('HF SigLIP vision tower -> timm', siglip, siglip_names, source_outputs=pooled, needs=NEEDS),
    Pair('HF SAM image encoder -> timm', sam, sam_names, first_output, features, needs=NEEDS),
    Pair('HF DINOv3 ViT-S -> timm', dinov3, dinov3_names, dinov3_source, features, needs=NEEDS),
    Pair('HF ViT-MSN -> timm', msn, msn_names, source_outputs=class_token, needs=NEEDS),
)
