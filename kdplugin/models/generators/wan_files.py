"""The parts of a Wan pipeline on disk: experts, scheduler, the boundary between the experts.

Reads a diffusers folder (``model_index.json``, ``transformer/``, ``transformer_2/``, ``scheduler/``) and the folders of
Wan's own code (``high_noise_model/`` and ``low_noise_model/``, or one model at the top).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdplugin.errors import CheckpointError
from kdplugin.models.generators.text_encoder import DTYPES
from kdplugin.weights.layouts.wan import diffusers_names
from kdplugin.weights.reading.hub import is_id
from kdplugin.weights.reading.source import TensorSource, open_source

EXPERTS = {'high': ('transformer', 'high_noise_model'), 'low': ('transformer_2', 'low_noise_model')}
"""Expert -> its folder in a diffusers pipeline and in Wan's own release."""
BOUNDARY = 0.875
"""Of T2V-A14B; Wan's own folders do not say it (``wan/configs/wan_t2v_A14B.py``)."""
PARTS = ('model_index.json', 'scheduler/*', 'text_encoder/*', 'tokenizer/*')
OWN = {
    'dim': None, 'num_heads': 'num_attention_heads', 'in_dim': 'in_channels', 'out_dim': 'out_channels',
    'ffn_dim': 'ffn_dim', 'freq_dim': 'freq_dim', 'num_layers': 'num_layers', 'text_dim': 'text_dim', 'eps': 'eps',
}  # fmt: skip
"""Keys of Wan's own config.json -> those of diffusers' ``WanTransformer3DModel``."""


@dataclass(frozen=True)
class WanFolder:
    """Where the parts of a pipeline lie.

    Args:
        root: the folder.
        experts: folder of each expert, 'high' alone where there is one.
        boundary: share of the timesteps above which 'high' speaks; None where it is alone.
    """

    root: Path
    experts: dict[str, Path]
    boundary: float | None


def pipeline_folder(
    where: str | Path, patterns: tuple[str, ...] = (*PARTS, 'transformer/*', 'transformer_2/*')
) -> Path:
    """Return a local folder, or that of a Hugging Face id in the library's cache, downloaded where there is a network.

    Raises:
        CheckpointError: there is neither such a folder nor such an id, or the hub cannot be reached.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return path
    why = 'it is no folder'
    if is_id(str(where)) and '/' in str(where):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(where), allow_patterns=list(patterns)))
        except Exception as error:  # its own errors, those of its HTTP library, OSError
            why = f'as an id of the Hugging Face hub it cannot be had ({type(error).__name__})'
    raise CheckpointError(
        f'Expected the folder of a Wan pipeline, or its id, but got {str(where)!r}: {why}. Download it where there is '
        "a network, with 'hf download', and give the folder."
    )


def wan_folder(where: str | Path) -> WanFolder:
    """Find the experts of a pipeline, and the boundary between them.

    Raises:
        CheckpointError: no expert is there, or a file is damaged.
    """
    root = pipeline_folder(where)
    for style in range(2):
        found = {name: root / names[style] for name, names in EXPERTS.items() if (root / names[style]).is_dir()}
        if 'high' in found:
            return WanFolder(root, found, _boundary(root) if 'low' in found else None)
    if (root / 'config.json').is_file():
        return WanFolder(root, {'high': root}, None)
    raise CheckpointError(
        f'Expected transformer/ or high_noise_model/ in {root} but got {sorted(p.name for p in root.iterdir())[:8]}. '
        'Give the folder of a Wan pipeline.'
    )


def _boundary(root: Path) -> float:
    index = root / 'model_index.json'
    found = read_json(index).get('boundary_ratio') if index.is_file() else BOUNDARY
    if not isinstance(found, int | float) or not 0 < found < 1:
        raise CheckpointError(
            f'Expected boundary_ratio from 0 to 1 in {index}, because there are two experts, but got {found!r}. '
            'Correct it; that of T2V-A14B is 0.875.'
        )
    return float(found)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; raises CheckpointError if it is missing or damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f'Expected a JSON file {path} but got {type(error).__name__}: {error}. Copy it again.'
        ) from error


def transformer_config(folder: Path) -> dict[str, Any]:
    """Return the arguments of ``WanTransformer3DModel`` that an expert's config.json stands for, of either kind.

    Raises:
        CheckpointError: it is missing, damaged, or of another model.
    """
    found = read_json(folder / 'config.json')
    if 'num_attention_heads' in found:
        return {key: value for key, value in found.items() if not key.startswith('_')}
    if not {'dim', 'num_heads', 'num_layers'} <= found.keys() or found.get('model_type', 't2v') != 't2v':
        raise CheckpointError(
            f'Expected the config of a text-to-video Wan transformer in {folder / "config.json"} but got keys '
            f'{sorted(found)[:8]}. Give the transformer of a t2v model.'
        )
    renamed = {new: found[old] for old, new in OWN.items() if new is not None and old in found}
    return {**renamed, 'attention_head_dim': found['dim'] // found['num_heads']}


def empty_transformer(config: Mapping[str, Any]) -> nn.Module:
    """Return a ``WanTransformer3DModel`` on the meta device, but for its rotary tables."""
    from diffusers import WanTransformer3DModel

    with torch.device('meta'):
        model = WanTransformer3DModel.from_config(dict(config))
    made = model.config
    model.rope = type(model.rope)(made.attention_head_dim, made.patch_size, made.rope_max_seq_len)
    return model


def open_transformer(folder: Path) -> tuple[nn.Module, TensorSource]:
    """Return an expert without values, and its tensors unread, after every name and shape was compared.

    Raises:
        CheckpointError: a tensor is missing, too many, or of another shape.
    """
    model = empty_transformer(transformer_config(folder))
    source = diffusers_names(open_source(folder))
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wrong = {name: 'missing' for name in own if name not in source}
    wrong |= {name: 'unknown' for name in source if name not in own}
    wrong |= {name: f'{source.shape(name)} for {own[name]}' for name in own.keys() & set(source)
              if source.shape(name) != own[name]}  # fmt: skip
    if wrong:
        first = min(wrong)
        raise CheckpointError(
            f'Expected the {len(own)} tensors of the Wan transformer in {folder} but {len(wrong)} do not fit, such as '
            f'{first}: {wrong[first]}. Download it again, or correct its config.json.'
        )
    return model, source


def load_transformer(folder: Path, dtype: str = 'bfloat16') -> nn.Module:
    """Return an expert with its weights, in eval mode and frozen.

    Timestep embedding, modulation tables and norms stay in float32, as diffusers keeps them.

    Args:
        folder: of one expert.
        dtype: of the rest, 'float32', 'bfloat16' or 'float16'.

    Raises:
        CheckpointError: see ``open_transformer``.
    """
    model, source = open_transformer(folder)
    kept: Any = model._keep_in_fp32_modules
    exact = set(kept or ())
    tensors = {
        name: source[name].to(torch.float32 if exact & set(name.split('.')) else DTYPES[dtype]) for name in source
    }
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def load_scheduler(root: Path) -> Any:
    """Return the scheduler of a pipeline; one of plain flow matching where the folder has none.

    Raises:
        CheckpointError: its config names no scheduler of diffusers.
    """
    import diffusers

    folder = root / 'scheduler'
    if not folder.is_dir():
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    name = read_json(folder / 'scheduler_config.json').get('_class_name', '')
    kind = getattr(diffusers, name, None) if name.endswith('Scheduler') else None
    if kind is None:
        raise CheckpointError(f'Expected a scheduler of diffusers in {folder} but got {name!r}. Copy the folder again.')
    return kind.from_pretrained(folder)
