"""What nobody can know from names and shapes: parts of one shape whose new names say nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, renamed


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


PAIRS = (Pair('three heads of one shape', build, truth, refusable=r'[xyz]\.(weight|bias)'),)
