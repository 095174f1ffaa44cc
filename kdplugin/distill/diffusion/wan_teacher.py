"""The frozen video transformer, asked about single frames; of two experts the one that the timestep belongs to.

N image, C channel of the VAE, H W latent pixel, M token of text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.preprocessing import TeacherInput
from kdplugin.errors import ConfigError
from kdplugin.models.generators.flow import guided
from kdplugin.models.generators.text_encoder import DTYPES, EDGE
from kdplugin.models.generators.wan_files import load_scheduler, load_transformer, open_transformer, wan_folder
from kdplugin.module_paths import did_you_mean

TEACHER_KEYS = ('path', 'dtype', 'offload', 'guidance')
OFFLOAD = ('none', 'cpu')


class WanTeacher:
    """Wan's experts outside every module tree, in eval mode, without gradient.

    Every name and shape is compared when it is built; values are read when it is first asked.

    Args:
        path: folder of a pipeline, or an id of the Hugging Face hub, see ``wan_folder``.
        dtype: 'bfloat16', 'float32' or 'float16'.
        offload: 'cpu' keeps experts in main memory and brings one to the device of the batch while it is asked.
        guidance: scale of classifier-free guidance, or dict(high=4.0, low=3.0) by expert; 1 is none.

    Raises:
        CheckpointError: see ``wan_folder`` and ``open_transformer``.
    """

    def __init__(
        self,
        path: str | Path,
        dtype: str = 'bfloat16',
        offload: str = 'none',
        guidance: float | Mapping[str, float] = 1.0,
    ) -> None:
        self.folder = wan_folder(path)
        self.checkpoint, self.dtype, self.offload = str(path), dtype, offload
        scales = guidance if isinstance(guidance, Mapping) else dict.fromkeys(self.folder.experts, guidance)
        self.guidance = {name: float(scales[name]) for name in self.folder.experts}
        self.scheduler = load_scheduler(self.folder.root)
        opened = {name: open_transformer(expert) for name, expert in self.folder.experts.items()}
        settings: Any = next(iter(opened.values()))[0].config
        self.settings = dict(settings)
        self.tensors = sum(len(source) for _, source in opened.values())
        self.parameters = sum(value.numel() for model, _ in opened.values() for value in model.parameters())
        self.sha256 = fingerprint(
            [file for expert in self.folder.experts.values() for file in sorted(expert.iterdir())]
        )
        self.config: dict[str, Any] = dict(path=str(path), dtype=dtype)
        self.input = TeacherInput.parse({})
        self.probed: ProbeResult | None = None
        self._modules: dict[str, nn.Module] = {}

    @property
    def guided(self) -> bool:
        """Whether the empty prompt is needed."""
        return any(scale != 1 for scale in self.guidance.values())

    @property
    def how(self) -> str:
        """How it runs, for reports."""
        parts = [f'{len(self.folder.experts)} expert(s) in {self.dtype}', 'one frame']
        if self.folder.boundary is not None:
            parts.append(f'the high-noise one from timestep {self.boundary:g}')
        parts += ['offloaded to the CPU'] if self.offload == 'cpu' else []
        parts += [f'guidance {self.guidance}'] if self.guided else []
        return ', '.join(parts)

    @property
    def boundary(self) -> float:
        """The lowest timestep of the high-noise expert."""
        return (self.folder.boundary or 0.0) * self.scheduler.config.num_train_timesteps

    @property
    def module(self) -> nn.ModuleDict:
        """All experts by name, loaded."""
        return nn.ModuleDict({name: self._expert(name) for name in self.folder.experts})

    def open_cache(self, dataset: Any) -> None:
        """Its outputs are never kept: each step asks about other noise."""

    def choose(self, timesteps: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each expert that is asked, and the indices of its images."""
        high = timesteps >= self.boundary
        for name, chosen in (('high', high), ('low', ~high)):
            if chosen.any():
                yield name, chosen.nonzero()[:, 0]

    @torch.no_grad()
    def outputs(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, empty: Tensor | None = None, taps: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the velocity (N, C, H, W) in float32, guided where that is set, and what taps put out.

        Args:
            latents: (N, C, H, W).
            timesteps: (N,).
            text: (N, M, D).
            empty: the empty prompt (1, M, D), for guidance.
            taps: module paths; they see the prompt, not the empty one.
        """
        velocity = torch.empty_like(latents, dtype=torch.float32)
        tapped: dict[str, list[Tensor]] = {}
        for name, index in self.choose(timesteps):
            model, scale = self._place(name, latents.device), self.guidance[name]
            with torch.autocast(latents.device.type, enabled=False), catch(model, taps, 'teacher') as caught:
                found = _ask(model, latents[index], timesteps[index], text[index])
                tensors = {tap: list(values) for tap, values in caught.tensors.items()}
            if scale != 1 and empty is not None:
                with torch.autocast(latents.device.type, enabled=False):
                    nothing = empty.expand(len(index), -1, -1)
                    found = guided(found, _ask(model, latents[index], timesteps[index], nothing), scale)
            velocity[index] = found
            for tap, values in tensors.items():
                whole = tapped.setdefault(tap, [value.new_empty(len(latents), *value.shape[1:]) for value in values])
                for target, value in zip(whole, values, strict=True):
                    target[index] = value
            self._put_back(name)
        return velocity, tapped

    def _expert(self, name: str) -> nn.Module:
        if name not in self._modules:
            self._modules[name] = load_transformer(self.folder.experts[name], self.dtype)
        return self._modules[name]

    def _place(self, name: str, device: torch.device) -> nn.Module:
        return self._expert(name).to(device)

    def _put_back(self, name: str) -> None:
        if self.offload == 'cpu':
            self._modules[name].to('cpu')


def _ask(model: Any, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """Return the velocity (N, C, H, W) of one frame."""
    kind = model.patch_embedding.weight.dtype
    return model(latents[:, :, None].to(kind), timesteps, text.to(kind), return_dict=False)[0][:, :, 0].float()


def fingerprint(files: Sequence[Path]) -> str:
    """Return a sha256 over names, sizes and both ends of files: reading 57 GB would take minutes at every start."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            size = path.stat().st_size
            digest.update(f'{path.name} {size}'.encode())
            with path.open('rb') as file:
                digest.update(file.read(EDGE))
                file.seek(max(size - EDGE, 0))
                digest.update(file.read(EDGE))
    return digest.hexdigest()


def wan_teacher_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a teacher config of ``kdplugin.DiffusionDistiller``."""
    for key in config:
        if key not in TEACHER_KEYS:
            yield ConfigError(
                f'Expected keys {list(TEACHER_KEYS)} in teacher but got {key!r}.{did_you_mean(key, TEACHER_KEYS)}'
            )
    if not config.get('path'):
        yield ConfigError("Expected a path in teacher but got none. Write teacher=dict(path='Wan2.2-T2V-A14B').")
    for key, known in (('dtype', tuple(DTYPES)), ('offload', OFFLOAD)):
        if config.get(key, known[0]) not in known:
            yield ConfigError(
                f'Expected {key} of {list(known)} in teacher but got {config[key]!r}. Choose one of these.'
            )
    scales = config.get('guidance', 1.0)
    values = list(scales.values()) if isinstance(scales, Mapping) else [scales]
    keyed = not isinstance(scales, Mapping) or {'high', 'low'} == scales.keys()
    if not keyed or any(
        isinstance(value, bool) or not isinstance(value, int | float) or value <= 0 for value in values
    ):
        yield ConfigError(
            f'Expected guidance in teacher to be a number above 0, or dict(high=4.0, low=3.0), but got {scales!r}. '
            'Write 1 for none.'
        )
