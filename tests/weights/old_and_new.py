"""One small network under the names of before and after a refactoring."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PICTURE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(5))


class OldModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(x).relu()).relu().mean((2, 3)))


class NewModel(nn.Module):
    """The same function; another order of definition, other names."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(8, 5)
        self.backbone = nn.ModuleDict(
            {
                'stage1': nn.ModuleDict({'conv': nn.Conv2d(3, 8, 3, padding=1), 'norm': nn.BatchNorm2d(8)}),
                'stage2': nn.ModuleDict({'conv': nn.Conv2d(8, 8, 3, padding=1), 'norm': nn.BatchNorm2d(8)}),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        for name in ('stage1', 'stage2'):
            stage = self.backbone[name]
            x = stage['norm'](stage['conv'](x)).relu()
        return self.classifier(x.mean((2, 3)))
