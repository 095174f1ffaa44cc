"""MMRazor 1.0.0 from a checkout, for a comparison; its quantization, which new torch cannot import, is left empty.

Nothing of it is part of this project; `git clone https://github.com/open-mmlab/mmrazor -b v1.0.0` makes the checkout.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmcv
from torch import nn

from kdplugin.errors import ConfigError

EMPTY = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.observers',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)


class EmptyModule(ModuleType):
    """A package whose every name is an empty class."""

    __path__: list[str] = []
    __all__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (), {})


def load_rival(checkout: Path) -> ModuleType:
    """Import mmrazor from a checkout.

    Raises:
        ConfigError: there is no mmrazor in the folder.
    """
    if not (checkout / 'mmrazor' / '__init__.py').is_file():
        raise ConfigError(f'Expected a checkout of MMRazor at {checkout} but found none. Clone it and give --rival.')
    for name in EMPTY:
        sys.modules.setdefault(name, EmptyModule(name))
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    version, mmcv.__version__ = mmcv.__version__, '2.1.0'  # it refuses newer ones by their number
    try:
        importlib.import_module('mmrazor.models')
        return importlib.import_module('mmrazor')
    finally:
        mmcv.__version__ = version


def build_rival(
    checkout: Path, kind: str, student: Mapping[str, Any], teacher: Mapping[str, Any], checkpoint: str, tap: str,
    levels: Sequence[int], weight: float,
) -> nn.Module:  # fmt: skip
    """Build MMRazor's algorithm with CWD at one tap, as its own configs write it.

    Args:
        checkout: of MMRazor.
        kind: 'SingleTeacherDistill' or 'FpnTeacherDistill'.
        student: model config.
        teacher: model config.
        checkpoint: the teacher's weights.
        tap: module path on both sides.
        levels: indices of its outputs.
        weight: of the loss of each level.
    """
    load_rival(checkout)
    registry = importlib.import_module('mmrazor.registry').MODELS
    one_output = tap == 'neck'

    def pick(level: int, from_student: bool) -> dict[str, Any]:
        which = dict(data_idx=level) if one_output else dict(record_idx=level)
        return dict(from_student=from_student, recorder='tap', **which)

    losses = {
        f'loss_{level}': dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=weight) for level in levels
    }
    mappings = {
        f'loss_{level}': dict(preds_S=pick(level, from_student=True), preds_T=pick(level, from_student=False))
        for level in levels
    }
    recorder = dict(tap=dict(type='mmrazor.ModuleOutputs', source=tap))
    return registry.build(
        dict(
            type=f'mmrazor.{kind}',
            architecture=student,
            teacher=teacher,
            teacher_ckpt=checkpoint,
            distiller=dict(
                type='mmrazor.ConfigurableDistiller',
                student_recorders=recorder,
                teacher_recorders=recorder,
                distill_losses=losses,
                loss_forward_mappings=mappings,
            ),
        )
    )
