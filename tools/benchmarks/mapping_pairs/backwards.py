"""Pairs of the other families the other way round, their truths turned around element by element."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mapping_pairs import (
    authors,
    cnn,
    decoders,
    detection,
    detr,
    encoders,
    hierarchies,
    language,
    official,
    queries,
    segmentation,
    swin,
    texts,
    tokens,
)
from mapping_pairs.base import Built, Pair, State


def inverse(pair: Pair, shapes: dict[str, torch.Size], state: State) -> dict[str, Tensor]:
    """Return the tensors of these shapes from which ``pair.truth`` makes ``state``, where it determines them.

    Every element of the source is numbered, and the truth says where each number goes.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    numbers = torch.arange(sum(sizes.values()), dtype=torch.float64).split(list(sizes.values()))
    numbered = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), numbers, strict=True)}
    made = pair.truth(numbered)
    place = torch.full((sum(sizes.values()),), -1)
    place[torch.cat([made[name].flatten() for name in made]).long()] = torch.arange(
        sum(value.numel() for value in made.values())
    )
    values = torch.cat([state[name].flatten().double() for name in made])
    result = {}
    for name, part in numbered.items():
        where = place[part.flatten().long()]
        if (where >= 0).all():
            whole = name.endswith('num_batches_tracked')
            result[name] = values[where].view(shapes[name]).to(torch.int64 if whole else torch.float32)
    return result


def backwards(pair: Pair, name: str, refusable: str | None = None, bare: str | None = None) -> Pair:
    """Return the pair that asks for the source of ``pair`` from its target."""
    shapes: dict[str, torch.Size] = {}

    def build(tiny: bool) -> Built:
        source, target, inputs = pair.build(tiny)
        shapes.clear()
        shapes.update({name: value.shape for name, value in source.state_dict().items()})
        return target, source, inputs

    def truth(state: State) -> dict[str, Tensor]:
        return inverse(pair, shapes, state)

    return Pair(name, build, truth, pair.target_outputs, pair.source_outputs, refusable, bare, pair.needs)


def named(pairs: tuple[Pair, ...], name: str) -> Pair:
    return next(pair for pair in pairs if pair.name == name)


BARE = rf'encoder\.{swin.MERGING}'
SQUARE = r'h\.\d+\.attn\.c_proj\.weight'
PAIRS = (
    backwards(named(segmentation.PAIRS, 'torchvision FCN-R50 -> mmseg'), 'mmseg FCN-R50 -> torchvision'),
    backwards(named(segmentation.PAIRS, 'HF SegFormer MiT-B0 -> mmseg'), 'mmseg MiT-B0 -> HF SegFormer'),
    backwards(named(swin.PAIRS, 'timm Swin-T -> mmdet'), 'mmdet Swin-T -> timm', swin.MERGING),
    backwards(named(swin.PAIRS, 'HF Swin-T -> timm'), 'timm Swin-T -> HF', bare=BARE),
    backwards(named(detr.PAIRS, 'HF DETR encoder-decoder -> mmdet'), 'mmdet DETR encoder-decoder -> HF'),
    backwards(named(detection.PAIRS, 'torchvision RetinaNet R50-FPN -> mmdet'), 'mmdet RetinaNet -> torchvision'),
    backwards(named(cnn.PAIRS, 'torchvision ConvNeXt-T -> timm'), 'timm ConvNeXt-T -> torchvision'),
    backwards(named(cnn.PAIRS, 'timm ConvNeXt-T of 1x1 convolutions -> HF'), 'HF ConvNeXt-T -> timm 1x1 convolutions'),
    backwards(named(cnn.PAIRS, 'torchvision EfficientNet-B0 -> timm'), 'timm EfficientNet-B0 -> torchvision'),
    backwards(named(language.PAIRS, 'HF GPT-2 -> torch TransformerEncoder'), 'torch encoder -> HF GPT-2', SQUARE),
    backwards(named(language.PAIRS, 'HF BERT-base -> torch TransformerEncoder'), 'torch encoder -> HF BERT-base'),
    backwards(named(tokens.PAIRS, 'timm PVTv2-B0 -> mmdet'), 'mmdet PVTv2-B0 -> timm'),
    backwards(named(tokens.PAIRS, 'timm BEiT-B/16 -> HF'), 'HF BEiT-B/16 -> timm'),
    backwards(named(tokens.PAIRS, 'timm ViT-B/16 -> mmseg'), 'mmseg ViT-B/16 -> timm'),
    backwards(named(authors.PAIRS, 'OpenAI CLIP ViT-B/32 -> HF'), 'HF CLIP -> OpenAI CLIP ViT-B/32'),
    backwards(named(encoders.PAIRS, 'HF SigLIP vision tower -> timm'), 'timm SigLIP -> HF'),
    backwards(named(encoders.PAIRS, 'HF SAM image encoder -> timm'), 'timm SAM image encoder -> HF'),
    backwards(named(hierarchies.PAIRS, 'HF ConvNeXt V2 -> timm'), 'timm ConvNeXt V2 -> HF'),
    backwards(named(hierarchies.PAIRS, 'torchvision MobileNetV3-S -> timm'), 'timm MobileNetV3-S -> torchvision'),
    backwards(named(decoders.PAIRS, 'torchvision DeepLabV3-R50 -> mmseg'), 'mmseg DeepLabV3-R50 -> torchvision'),
    backwards(named(queries.PAIRS, 'HF Conditional DETR -> mmdet'), 'mmdet Conditional DETR -> HF'),
    backwards(named(official.PAIRS, 'OpenAI CLIP, both towers -> HF'), 'HF CLIP, both towers -> OpenAI'),
    backwards(named(texts.PAIRS, 'HF Llama -> HF Phi-3'), 'HF Phi-3 -> HF Llama'),
    backwards(named(texts.PAIRS, 'torch Transformer -> HF DETR encoder-decoder'), 'HF DETR -> torch Transformer'),
)
