"""What nobody can know from names and shapes, and what has no source: heads of one shape, other class counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, renamed
from mapping_pairs.vit import hf_names, images, timm_vit


class Heads(nn.Module):
    """A small convolutional body and heads of one shape, called as told."""

    def __init__(self, body: str, names: str) -> None:
        super().__init__()
        self.names = (body, *names)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)]
        self.add_module(body, nn.Sequential(*layers))
        for name in names:
            self.add_module(name, nn.Conv2d(16, 4, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        body, *heads = map(self.get_submodule, self.names)
        features = body(images)
        return [head(features) for head in heads]


def build(tiny: bool) -> Built:
    return Heads('body', 'abc'), Heads('encoder', 'xyz'), torch.randn(1, 3, 16, 16)


def truth(state: State) -> dict[str, Tensor]:
    return renamed(state, (r'^body', 'encoder'), (r'^a\.', 'x.'), (r'^b\.', 'y.'), (r'^c\.', 'z.'))


def other_classes(tiny: bool) -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    small = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32)
    target = ViTForImageClassification(ViTConfig(num_labels=7, **(small if tiny else {})))
    return timm_vit(tiny), target, images(tiny)


def without_classifier(state: State) -> dict[str, Tensor]:
    return hf_names({name: value for name, value in state.items() if not name.startswith('head')})


def timm_features(module: Any, inputs: Tensor) -> Tensor:
    return module.forward_features(inputs).flatten()


def hf_features(module: Any, inputs: Tensor) -> Tensor:
    return module.vit(inputs).last_hidden_state.flatten()


PAIRS = (
    Pair(
        'timm ViT-B/16 -> HF with 7 classes',
        other_classes,
        without_classifier,
        timm_features,
        hf_features,
        needs=('transformers',),
    ),
    Pair('three heads of one shape', build, truth, refusable=r'[xyz]\.(weight|bias)'),
)
