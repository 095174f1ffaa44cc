"""Stacks: even blocks found by their values, indices that shift by one, wrappers around the same model."""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import VisionTransformer

from mapping_pairs.base import Built, Pair, State, renamed
from mapping_pairs.cnn import tv_resnet50
from mapping_pairs.vit import TIMM_TO_TORCHVISION, hf_names, images, timm_vit

WIDTH, HEADS = 192, 3


def deep_vit(depth: int) -> nn.Module:
    return timm_vit(False, embed_dim=WIDTH, num_heads=HEADS, depth=depth, num_classes=10, img_size=64)


def torchvision_half(depth: int) -> nn.Module:
    return VisionTransformer(64, 16, depth, HEADS, WIDTH, 4 * WIDTH, num_classes=10)


def hf_half(depth: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = dict(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH, image_size=64)
    return ViTForImageClassification(ViTConfig(num_labels=10, num_hidden_layers=depth, **sizes))


def half(tiny: bool, target: Any) -> Built:
    """Return a stack and one of half its depth."""
    depth = 4 if tiny else 24
    return deep_vit(depth), target(depth // 2), images(False, 64)


def even_blocks(state: State) -> dict[str, Tensor]:
    """Keep blocks 0, 2, 4, ... as 0, 1, 2, ..."""
    kept = {}
    for name, value in state.items():
        block = re.match(r'blocks\.(\d+)\.(.*)', name)
        if block is None:
            kept[name] = value
        elif int(block[1]) % 2 == 0:
            kept[f'blocks.{int(block[1]) // 2}.{block[2]}'] = value
    return kept


def without_odd_blocks(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the output of a stack whose odd blocks are passed by."""
    blocks = module.blocks
    module.blocks = nn.Sequential(*list(blocks)[::2])  # type: ignore[arg-type]
    try:
        return module(inputs).flatten()
    finally:
        module.blocks = blocks


def counted_from_one(tiny: bool) -> Built:
    """Return a stack and one whose blocks are called 1 to N instead of 0 to N - 1."""
    source, target = timm_vit(tiny, 'vit_small_patch16_224'), timm_vit(tiny, 'vit_small_patch16_224')
    named = OrderedDict((str(index + 1), block) for index, block in enumerate(target.blocks))  # type: ignore[arg-type]
    target.blocks = nn.Sequential(named)
    return source, target, images(tiny)


def one_up(state: State) -> dict[str, Tensor]:
    return renamed(state, (r'^blocks\.(\d+)', lambda match: f'blocks.{int(match[1]) + 1}'))


class Wrapped(nn.Module):
    """A model as a child: Lightning calls it ``model``, DistributedDataParallel ``module``."""

    def __init__(self, model: nn.Module, name: str, **others: nn.Module) -> None:
        super().__init__()
        self.child = name
        self.add_module(name, model)
        for other, module in others.items():
            self.add_module(other, module)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.get_submodule(self.child)(inputs)


def lightning(tiny: bool) -> Built:
    """Return a LightningModule's tensors, with those of its loss and its metric, and the plain model."""
    metric = nn.BatchNorm1d(10)
    source = Wrapped(tv_resnet50(tiny), 'model', criterion=nn.Linear(10, 10), metric=metric)
    return source, tv_resnet50(tiny), images(False, 64)


def parallel(tiny: bool) -> Built:
    return Wrapped(tv_resnet50(tiny), 'module'), tv_resnet50(tiny), images(False, 64)


def into_wrapper(tiny: bool) -> Built:
    return tv_resnet50(tiny), Wrapped(tv_resnet50(tiny), 'backbone'), images(False, 64)


def unwrapped(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def shuffle(module: nn.Module, seed: int = 0) -> nn.Module:
    """Register a module's children in another order where the order means nothing."""
    order = random.Random(seed)  # noqa: S311
    for parent in module.modules():
        if not isinstance(parent, (nn.Sequential, nn.ModuleList)):
            children = list(parent._modules.items())
            order.shuffle(children)
            parent._modules = dict(children)
    return module


def shuffled(tiny: bool) -> Built:
    return shuffle(tv_resnet50(tiny)), tv_resnet50(tiny), images(False, 64)


PAIRS = (
    Pair(
        'even blocks of 24, by value -> torchvision names',
        partial(half, target=torchvision_half),
        lambda state: renamed(even_blocks(state), *TIMM_TO_TORCHVISION),
        source_outputs=without_odd_blocks,
        by_values=True,
    ),
    Pair(
        'even blocks of 24, by value -> HF names, split',
        partial(half, target=hf_half),
        lambda state: hf_names(even_blocks(state)),
        source_outputs=without_odd_blocks,
        by_values=True,
        needs=('transformers',),
    ),
    Pair('blocks counted from one', counted_from_one, one_up),
    Pair('Lightning ResNet-50 -> plain', lightning, partial(unwrapped, prefix='model.')),
    Pair('DDP ResNet-50 -> plain', parallel, partial(unwrapped, prefix='module.')),
    Pair('ResNet-50 -> backbone of a wrapper', into_wrapper, lambda state: renamed(state, ('^', 'backbone.'))),
    Pair('ResNet-50 in another order', shuffled, dict),
)
