"""Make mmengine read checkpoints through our reader, whatever path or URL they come from.

mmengine's own loaders unpickle freely: 0.10.7 calls ``torch.load`` as it is, the OneDL line falls back to
``weights_only=False``. ``install`` replaces every scheme, so that teacher, resume, ``load_from`` and
``init_cfg=dict(type='Pretrained')`` are all safe.
"""

from __future__ import annotations

import io
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine import fileio
from mmengine.runner import checkpoint as host

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import read_checkpoint

TABLES = {
    'torchvision://': host.get_torchvision_models,
    'modelzoo://': host.get_torchvision_models,
    'open-mmlab://': host.get_external_models,
    'openmmlab://': host.get_external_models,
    'mmcls://': host.get_mmcls_models,
}
STORES = ('s3://', 'petrel://', 'ceph://')


def resolve(name: str) -> str:
    """Turn a model-zoo name ('torchvision://resnet50') into the path or URL that mmengine lists for it."""
    for prefix, table in TABLES.items():
        if name.startswith(prefix):
            known = table()
            model = name[len(prefix) :]
            if table is host.get_external_models:
                model = host.get_deprecated_model_names().get(model, model)
            if model not in known:
                raise CheckpointError(f'Expected a model that {prefix} knows but got {model!r}. Give a file or URL.')
            found = str(known[model])
            return found if '://' in found else str(Path(host._get_mmengine_home()) / found)
    return name


def local_file(name: str | Path) -> Path:
    """Return a local file for a path, URL or model-zoo name; downloads go to torch's hub cache.

    Raises:
        CheckpointError: the download failed, or the storage has to be copied by hand.
    """
    name = resolve(str(name))
    if not name.startswith(('http://', 'https://')):
        if '://' in name:
            raise CheckpointError(f'Expected a file or URL but got {name}. Copy it to a local file first.')
        return Path(name).expanduser()
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(name).path).name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(name, str(target))
        except (OSError, HTTPException) as error:
            raise CheckpointError(
                f'Expected to download {name} but got {error}. Download it by hand to {target}.'
            ) from None
    return target


def _load(filename: str, map_location: Any = None) -> dict[str, Any]:
    if filename.startswith(STORES):
        return read_checkpoint(io.BytesIO(fileio.get(filename)), map_location or 'cpu')
    content = read_checkpoint(local_file(filename), map_location or 'cpu')
    return host._process_mmcls_checkpoint(content) if filename.startswith('mmcls://') else content


def load_from_safe(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a checkpoint for ``mmengine.runner.CheckpointLoader``."""
    return _load(filename, map_location)


def install() -> None:
    """Register ``load_from_safe`` for every scheme of mmengine's CheckpointLoader."""
    for prefix in list(host.CheckpointLoader._schemes):
        host.CheckpointLoader.register_scheme(prefix, loader=load_from_safe, force=True)
