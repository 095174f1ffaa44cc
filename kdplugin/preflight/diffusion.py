"""Is a ``kdplugin.DiffusionDistiller`` written correctly, and do teacher, student and prompts fit together?

No weights are read: both models are looked at on the meta device, files of weights by their names and shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, MODELS
from torch import nn

from kdplugin.distill.diffusion.diffusion_distiller import check_fit, diffusion_mistakes, open_prompts
from kdplugin.distill.diffusion.flow_steps import flow_mistakes
from kdplugin.distill.diffusion.wan_teacher import wan_teacher_mistakes
from kdplugin.errors import ConfigError
from kdplugin.models.generators.wan_files import WanFolder, load_scheduler, open_transformer, read_json, wan_folder
from kdplugin.preflight.data import located_datasets, near_files
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.pairs import check_pair, check_tap_paths
from kdplugin.preflight.registries import find_type

TEACHER, TEXT = 'model.teacher', 'model.text_encoder'


@dataclass(frozen=True)
class WanLayout:
    """A teacher as its files describe it.

    Args:
        folder: where its parts lie.
        experts: each without values.
    """

    folder: WanFolder
    experts: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the transformers."""
        return dict(next(iter(self.experts.values())).config)

    @property
    def parameters(self) -> int:
        """Of all experts together."""
        return sum(value.numel() for expert in self.experts.values() for value in expert.parameters())


def check_diffusion(found: Findings, config: Config) -> None:
    """Keys, teacher, student, taps, text encoder and prompts of a distillation from a video transformer are right."""
    model = config.model
    _check_keys(found, model)
    if config.get('val_cfg') is not None:
        found.error(
            'val_cfg',
            'Expected no validation, because no metric measures what this student makes, but got one. Remove val_cfg, '
            'val_dataloader and val_evaluator; python tools/production_test.py tests a student.',
        )
    teacher = teacher_layout(found, model.get('teacher'))
    student = found.attempt('model.student', 'the student to build', _without_values, model.get('student'))
    if teacher is not None and student is not None:
        found.attempt('model.student', 'a student of its teacher', check_fit, student, teacher)
    text = model.get('text_encoder')
    if teacher is not None and isinstance(text, Mapping) and text.get('cache'):
        found.attempt(TEXT, 'a text encoder', _check_text, teacher, text)
    pairs = model.get('pairs')
    for name, entry in pairs.items() if isinstance(pairs, Mapping) else ():
        if isinstance(entry, Mapping):
            check_pair(found, str(name), entry)
            expert = None if teacher is None else next(iter(teacher.experts.values()))
            check_tap_paths(found, str(name), entry, student, expert)
    check_prompts(found, config)


def _check_keys(found: Findings, model: Mapping[str, Any]) -> None:
    parts: dict[str, set[str]] = {}
    for where, check in ((TEACHER, wan_teacher_mistakes), ('model.flow', flow_mistakes)):
        own = model.get(where.partition('.')[2])
        parts[where] = {str(one) for one in check(own)} if isinstance(own, Mapping) else set()
    for mistake in map(str, diffusion_mistakes({key: value for key, value in model.items() if key != 'type'})):
        found.error(next((where for where, said in parts.items() if mistake in said), 'model'), mistake)


def teacher_layout(found: Findings, settings: Any) -> WanLayout | None:
    """Return the teacher, None with an error where its folder is missing, or does not hold what it says."""
    path = settings.get('path') if isinstance(settings, Mapping) else None
    if not isinstance(path, str) or not path:  # said by its keys
        return None
    root = Path(path).expanduser()
    if not root.is_dir():
        cached = _cached(path)
        if cached is None:
            found.error(
                f'{TEACHER}.path',
                f'Expected the folder of a Wan pipeline but {path} does not exist.{near_files(path)} Download it with '
                f"'hf download Wan-AI/Wan2.2-T2V-A14B-Diffusers --local-dir {path}', write the tiny one with "
                'tools/make_wan_tiny.py, or correct the path.',
            )
            return None
        root = cached
    return found.attempt(f'{TEACHER}.path', 'a Wan pipeline', _open, root)


def _cached(identifier: str) -> Path | None:
    """Return the folder of an id in the Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(identifier, local_files_only=True))
    except Exception:  # its own errors, and a ValueError for what can be no id
        return None


def _open(root: Path) -> WanLayout:
    folder = wan_folder(root)
    load_scheduler(folder.root)
    return WanLayout(folder, {name: open_transformer(expert)[0] for name, expert in folder.experts.items()})


def _without_values(settings: Any) -> nn.Module:
    if not isinstance(settings, Mapping) or 'WanLiteStudent' not in str(settings.get('type')):
        raise ConfigError(
            f'Expected a kdplugin.WanLiteStudent as student but got {settings!r:.80}. Write student=dict(type='
            "'kdplugin.WanLiteStudent', hidden_size=...)."
        )
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(settings))


def _check_text(teacher: WanLayout, settings: Mapping[str, Any]) -> None:
    prompts = open_prompts(SimpleNamespace(folder=teacher.folder), settings, 0.0)  # type: ignore[arg-type]
    file = Path(prompts.encoder.folder) / 'text_encoder' / 'config.json' if prompts.encoder is not None else Path()
    width, expected = read_json(file).get('d_model'), teacher.settings['text_dim']
    if width != expected:
        raise ConfigError(
            f'Expected a text encoder of width {expected}, which the teacher reads, but {file} says {width}. Give the '
            "teacher's own folder."
        )


def check_prompts(found: Findings, config: Config) -> None:
    """The training data is prompts, and their file can be read."""
    for path, dataset in located_datasets(config, 'train_dataloader'):
        kind = find_type(dataset.get('type'), (DATASETS,), dataset.get('_scope_'))
        name = getattr(kind, '__name__', '')
        if name == 'PromptDataset' and not any(one.where.startswith(path) for one in found.errors):
            found.attempt(path, 'prompts', DATASETS.build, copy.deepcopy(dict(dataset)))
        elif isinstance(kind, type) and issubclass(kind, BaseDataset):
            found.error(
                f'{path}.type',
                f"Expected prompts for a kdplugin.DiffusionDistiller but got {name}. Write dataset=dict(type='kdplugin."
                "PromptDataset').",
            )
