"""The frozen teacher: built, loaded strictly, and run without gradient, no further than to its deepest tap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kdplugin.checkpoint_schemes import local_file
from kdplugin.distill.ground_truth import first_tensor, samples_of
from kdplugin.distill.probe import ProbeResult, probe
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.determinism import kind_of, pipeline_text, random_parts
from kdplugin.distill.teachers.early_stop import Steady, catch_until, find_steady
from kdplugin.distill.teachers.output_cache import OutputCache, cache_mistakes, parse_bytes
from kdplugin.distill.teachers.preprocessing import INPUT_KEYS, TeacherInput, input_mistakes
from kdplugin.distill.teachers.teacher_model import (
    build_teacher_model,
    load_strictly,
    teacher_model_config,
    weights_of,
)
from kdplugin.distill.teachers.teacher_speed import (
    SPEED_KEYS,
    FastParts,
    Speed,
    fastest,
    lay_out,
    parse_speed,
    speed_mistakes,
)
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.io import hash_file

__all__ = [
    'Teacher', 'build_teacher', 'build_teacher_model', 'load_strictly', 'load_teacher', 'teacher_mistakes',
]  # fmt: skip
TEACHER_KEYS = ('cfg', 'model', 'checkpoint', 'trust_checkpoint', *SPEED_KEYS, *INPUT_KEYS, 'cache')


class Teacher:
    """A model in eval mode without gradients, outside every module tree.

    Args:
        module: the model with the loaded weights.
        checkpoint: the file they came from.
        sha256: of that file.
        tensors: number of tensors loaded (all of them).
        parameters: number of parameters loaded.
        probed: what its taps put out; set by ``learn``.
        config: the teacher's config, of which ``Speed``, ``TeacherInput`` and ``cache`` are read here.
    """

    def __init__(
        self,
        module: nn.Module,
        checkpoint: str,
        sha256: str,
        tensors: int,
        parameters: int,
        probed: ProbeResult | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.checkpoint, self.sha256, self.tensors, self.parameters = checkpoint, sha256, tensors, parameters
        self.probed = probed
        self.config = dict(config or {})
        self.speed = parse_speed(self.config)
        self.input = TeacherInput.parse(self.config)
        self.calls: dict[str, int] | None = None
        self.cache: OutputCache | None = None
        self._by_image = False
        self._preprocessor: nn.Module | None = None
        self._module = module
        self._fast = FastParts(module, Speed(fuse=False), ())
        self._device: torch.device | None = None
        self._asked = False
        self._whole = True

    @property
    def module(self) -> nn.Module:
        """The model with the loaded weights, on the device of the last batch.

        Weights that folded ones stand for are let go when the teacher first runs, unless somebody asked for them
        since ``learn``; they are read again from the checkpoint when next asked for.

        Raises:
            CheckpointError: the file is not the one that was loaded.
        """
        self._asked = True
        if not self._whole and self._device is not None:
            self._fast.take_back(self._weights_again)
            self._module.to(self._device)
            self._whole = True
        return self._module

    def _weights_again(self) -> dict[str, Tensor]:
        file = local_file(self.checkpoint)
        if not file.is_file() or hash_file(file) != self.sha256:
            raise CheckpointError(
                f'Expected the teacher checkpoint {self.checkpoint} to be the file that was loaded at the start but it '
                'was changed or removed since. Bring it back, with sha256 ' + self.sha256 + '.'
            )
        return weights_of(self.config)

    @property
    def how(self) -> str:
        """How it runs, for example 'folded, channels_last, up to its deepest tap'."""
        if self.probed is None:
            return 'not at all: none of its pairs ever has a weight above 0'
        seen = f'on its own preprocessing of the images, {self.speed}' if self.input.preprocess == 'own' else self.speed
        return ', '.join(filter(None, (str(seen), 'to its end' if self.calls is None else 'up to its deepest tap')))

    def learn(
        self, taps: Sequence[str], student: nn.Module, sizes: Sequence[tuple[int, int]], owner: str = 'teacher'
    ) -> ProbeResult:
        """Find out how to run the taps: in which mode, how far, and how fast. Nothing of the teacher changes.

        Args:
            taps: paths of its modules.
            student: whose images it will see.
            sizes: (H, W) of these to try.
            owner: how messages call the teacher.

        Raises:
            PathError, TapError: see ``probe``.
            ConfigError: an option that cannot hold for this teacher.
        """
        self.input = self.input.between(student, self._module)
        self._preprocessor = getattr(student, 'data_preprocessor', None)
        sizes = [self.input.size_of(size) for size in sizes]
        self.probed = probe(self._module, taps, owner, sizes)
        if self.input.resizes and self.probed.mode == 'loss':
            raise ConfigError(
                f'Expected taps of the {owner} that fire without ground truth, because its images are resized, but '
                f'{list(taps)} fire in training only. Leave out input_size and scale, or tap earlier modules.'
            )
        try:
            steady: Steady | None = find_steady(self._module, taps, self.probed, owner, sizes)
        except Exception as error:
            steady, why = None, f'on two images it fails with {type(error).__name__}: {error}'
        else:
            why = 'the number of tensors that its taps put out changes with the images'
            self.calls, self._by_image = (steady.calls, steady.by_image) if steady else (None, False)
        if self.calls is None:
            print_log(f'The {owner} runs to its end in each step: {why}.', logger='current')
        self.speed, self._fast = fastest(self._module, self.speed, taps, steady, self.probed.mode, owner)
        self._asked = False
        return self.probed

    @torch.no_grad()
    def outputs(self, taps: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[Tensor]]:
        """Return what taps put out for a student's batch; from disk, with a ``cache`` that has all of it."""
        images = first_tensor(args, kwargs)
        samples = samples_of(args, kwargs)
        if self.cache is None:
            return self._run(taps, images, samples)
        return self.cache.outputs(
            taps, images, samples, self.speed.effective(images.device), lambda: self._run(taps, images, samples)
        )

    def _run(self, taps: Sequence[str], images: Tensor, samples: Sequence[Any] | None) -> dict[str, list[Tensor]]:
        if self.probed is None:
            raise ConfigError('Expected a probed teacher but got none. Build it through kdplugin.Distiller.')
        if self._device is None and not self._asked and self.config.get('checkpoint'):
            self._fast.let_go()
        images, samples = self.input(images, samples)
        if self.speed.lays_out(images.device) and images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        copies = self.probed.overwritten
        with self._fast.in_place() as model, self.speed.autocast(images.device):
            self._place(images.device)
            if self.calls is None:
                catching = catch(model, taps, 'teacher', copies)
            else:
                catching = catch_until(model, {tap: self.calls[tap] for tap in taps}, 'teacher', copies)
            with catching as caught:
                model(images, samples, mode=self.probed.mode)
        return {tap: [tensor.contiguous() for tensor in tensors] for tap, tensors in caught.tensors.items()}

    def _place(self, device: torch.device) -> None:
        """Move what runs, and not what it stands for."""
        if self._device != device:
            self._whole = self._asked and device == next(self._module.parameters()).device
            lay_out(self._module.to(device), self.speed.lays_out(device))
            self._device = device

    def check_cache(self, dataset: Any) -> None:
        """Find out whether outputs can be kept on disk, if the teacher's config has a ``cache``.

        Args:
            dataset: of the training, wrapped or not.

        Raises:
            ConfigError: its pipeline is random, or the taps' outputs do not belong to single images.
        """
        if self.config.get('cache') is None or self.probed is None:
            return
        random = random_parts(dataset, self._preprocessor)
        if random:
            raise ConfigError(
                'Expected a training pipeline that gives the same image each time, because teacher.cache keeps '
                f'outputs by image, but got {", ".join(random)}. Remove them, or remove teacher.cache.'
            )
        if not self._by_image:
            raise ConfigError(
                'Expected teacher taps that put out one entry for each image, because teacher.cache keeps them by '
                f'image, but got shapes {self.probed.shapes} for one image. Tap other modules, or remove teacher.cache.'
            )

    def open_cache(self, dataset: Any) -> None:
        """Begin to keep outputs on disk if the config has a ``cache``; raises what ``check_cache`` raises."""
        self.check_cache(dataset)
        settings = self.config.get('cache')
        if settings is None or self.probed is None:
            return
        about = {
            'teacher': self.sha256,
            'model': str(teacher_model_config(self.config)),
            'mode': self.probed.mode,
            'input': str(self.input),
            'preprocessor': kind_of(self._preprocessor),
            'transforms': pipeline_text(dataset),
        }
        self.cache = OutputCache(settings['dir'], parse_bytes(settings['max_bytes']), about)


def build_teacher(config: Mapping[str, Any]) -> Teacher:
    """Build and load a teacher from ``dict(cfg= or model=, checkpoint=, trust_checkpoint=False)``.

    Args:
        config: ``cfg`` is a config file ('mmdet::...' works too) whose ``model`` is taken, ``model`` a model
            config; ``checkpoint`` a local file or a URL that mmengine knows. ``precision``, ``channels_last``, ``fuse``
            and ``compile`` are those of ``Speed``; ``preprocess``, ``input_size`` and ``scale`` those of
            ``TeacherInput``; ``cache=dict(dir=, max_bytes=)`` keeps outputs on disk, see ``OutputCache``.

    Raises:
        ConfigError: an unknown, missing or contradictory key.
        CheckpointError: the file is missing, damaged, unsafe, or does not fit in every tensor.
    """
    for mistake in teacher_mistakes(config):
        raise mistake
    return load_teacher(build_teacher_model(config), config)


def teacher_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a teacher config."""
    if 'type' in config:
        yield ConfigError(
            f'Expected cfg or model, and checkpoint, in teacher but got a model config, {config["type"]!r}. Write '
            'teacher=dict(model=..., checkpoint=...) around it.'
        )
        return
    if 'cfg' in config and not isinstance(config['cfg'], str):
        yield ConfigError(
            "Expected cfg in teacher to be the path of a config file but got a dict. Write model= for a model's config."
        )
    for key in config:
        if key not in TEACHER_KEYS:
            yield ConfigError(
                f'Expected keys {list(TEACHER_KEYS)} in teacher but got {key!r}.{did_you_mean(key, TEACHER_KEYS)}'
            )
    if ('cfg' in config) == ('model' in config):
        yield ConfigError(f'Expected either cfg or model in teacher but got {sorted(config)}. Give one of them.')
    if not config.get('checkpoint'):
        yield ConfigError(
            'Expected a checkpoint in teacher but got none. A random teacher teaches nothing: '
            "write teacher=dict(cfg=..., checkpoint='file.pth')."
        )
    for mistakes in (speed_mistakes, input_mistakes, cache_mistakes):
        yield from mistakes(config)


def load_teacher(module: nn.Module, config: Mapping[str, Any]) -> Teacher:
    """Load a teacher config's checkpoint into its model, strictly.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or does not fit in every tensor.
    """
    name = f'teacher checkpoint {config["checkpoint"]}'
    weights = weights_of(config)
    choose: Any = getattr(module, 'own_tensors', None)
    if choose is not None:  # a model that is some of the parts of its file
        weights = choose(weights, name)
    load_strictly(module, weights, name)
    module.requires_grad_(False)
    return Teacher(
        module.eval(),
        str(config['checkpoint']),
        hash_file(local_file(config['checkpoint'])),
        tensors=len(module.state_dict()),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        config=config,
    )
