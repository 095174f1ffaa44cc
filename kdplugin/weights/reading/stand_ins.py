"""What checkpoints of other trainers hold beside their weights, as harmless stand-ins.

Lightning, DETR, timm and others save their hyper-parameters with the weights. Reading the weights needs none of these
classes, so each gets a stand-in under its qualified name: the file is read without the class, and without running it.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from typing import Any

DICTS = (
    'pytorch_lightning.utilities.parsing.AttributeDict',
    'lightning.pytorch.utilities.parsing.AttributeDict',
    'lightning_fabric.utilities.data.AttributeDict',
    'lightning.fabric.utilities.data.AttributeDict',
    'mmcv.utils.config.ConfigDict',
    'addict.addict.Dict',
    'easydict.EasyDict',
    'yacs.config.CfgNode',
)
"""Containers that become a dict with the same items."""

FORGOTTEN = (
    'omegaconf.dictconfig.DictConfig',
    'omegaconf.listconfig.ListConfig',
    'omegaconf.base.ContainerMetadata',
    'omegaconf.base.Metadata',
    *(f'omegaconf.nodes.{kind}Node' for kind in ('Any', 'String', 'Integer', 'Float', 'Boolean')),
    'typing.Any',  # the type that OmegaConf notes for an untyped node
    *(
        f'{package}.callbacks.{callback}'  # the keys under which older Lightning keeps its callbacks' state
        for package in ('pytorch_lightning', 'lightning.pytorch')
        for callback in ('model_checkpoint.ModelCheckpoint', 'early_stopping.EarlyStopping')
    ),
)
"""Classes that become an object without content."""

PATHS: dict[str, type[pathlib.PurePath]] = {
    f'{module}.{name}': kind
    for module in ('pathlib', 'pathlib._local')
    for name, kind in (
        ('PosixPath', pathlib.PurePosixPath),
        ('PurePosixPath', pathlib.PurePosixPath),
        ('WindowsPath', pathlib.PureWindowsPath),
        ('PureWindowsPath', pathlib.PureWindowsPath),
    )
}


class Container(dict[Any, Any]):
    """Stands for a library's dict: keeps the items and nothing else."""

    def __setstate__(self, state: Any) -> None:
        """Forget attributes."""


class Forgotten:
    """Stands for an object of a class that reading weights does not need."""

    def __new__(cls, *args: Any) -> Forgotten:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        """Forget arguments."""

    def __setstate__(self, state: Any) -> None:
        """Forget state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget items."""


def stand_ins() -> list[Any]:
    """Return the stand-ins as ``torch.serialization.safe_globals`` takes them: (class, qualified name)."""
    allowed: list[Any] = [(type(name.rsplit('.', 1)[-1], (Container,), {}), name) for name in DICTS]
    allowed += [(type(name.rsplit('.', 1)[-1], (Forgotten,), {}), name) for name in FORGOTTEN]
    allowed += [(kind, name) for name, kind in PATHS.items()]
    return [*allowed, argparse.Namespace, collections.defaultdict, dict, list]
