"""Images as a teacher was trained on them: its normalisation, its order of channels, its size.

N image, C channel, H W pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean

MODES = ('student', 'own')
INPUT_KEYS = ('preprocess', 'input_size', 'scale')
SHAPES = ('img_shape', 'pad_shape', 'batch_input_shape')
"""What data samples say of the size of their image, as (H, W)."""


@dataclass(frozen=True)
class Preprocessing:
    """What a ``data_preprocessor`` does to the pixels of an image that the pipeline hands on.

    Args:
        mean: by channel, after a change of their order; one number for all, or three.
        std: likewise.
        channel_conversion: RGB becomes BGR, or the other way round.
        pad_value: of what is added right and below; set after normalisation, as mmengine, mmdet and mmseg do.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_conversion: bool = False
    pad_value: float = 0.0

    @classmethod
    def of(cls, model: nn.Module) -> Preprocessing:
        """Read it from a model; one without normalisation leaves pixels as they are."""
        own = getattr(model, 'data_preprocessor', None)
        mean, std = getattr(own, 'mean', None), getattr(own, 'std', None)
        flips = getattr(own, '_channel_conversion', getattr(own, 'to_rgb', False))
        found = cls(channel_conversion=bool(flips), pad_value=float(getattr(own, 'pad_value', 0)))
        if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
            return found
        return replace(found, mean=tuple(mean.flatten().tolist()), std=tuple(std.flatten().tolist()))


def preprocessing_difference(student: nn.Module, teacher: nn.Module) -> str:
    """Describe how the teacher's input normalisation differs from the student's; empty where it does not."""
    ours, theirs = Preprocessing.of(student), Preprocessing.of(teacher)
    names = ('mean', 'std', 'channel_conversion')
    pairs = [(name, getattr(ours, name), getattr(theirs, name)) for name in names]
    return '; '.join(f'{name} {_readable(one)} and {_readable(two)}' for name, one, two in pairs if one != two)


def _readable(value: Any) -> Any:
    return [round(number, 4) for number in value] if isinstance(value, tuple) else value


def preprocessing_warning(student: nn.Module, teacher: nn.Module) -> str:
    """Return what to tell a person whose teacher was trained on images normalised in another way, or ''."""
    difference = preprocessing_difference(student, teacher)
    return difference and (
        f'Expected student and teacher to normalise images alike but got {difference}. The teacher sees the '
        "student's images: train the student with the teacher's data_preprocessor, or write "
        "teacher=dict(..., preprocess='own')."
    )


def input_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield what is wrong with the keys of a teacher config that are about its images."""
    mode, size, scale = (config.get(key) for key in INPUT_KEYS)
    if mode is not None and mode not in MODES:
        yield ConfigError(
            f'Expected preprocess of {list(MODES)} in teacher but got {mode!r}.{did_you_mean(str(mode), MODES)} '
            'Choose one.'
        )
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    if size is not None and not whole:
        yield ConfigError(f'Expected input_size=(H, W) in teacher but got {size!r}. Give two whole numbers > 0.')
    number = isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < float('inf')
    if scale is not None and not number:
        yield ConfigError(f'Expected a scale > 0 in teacher but got {scale!r}. Give a factor such as 2.0.')
    if size is not None and scale is not None:
        yield ConfigError('Expected either input_size or scale in teacher but got both. Keep one of them.')


@dataclass(frozen=True)
class TeacherInput:
    """From the student's batch to what the teacher sees.

    ``preprocess='own'`` undoes the student's normalisation and order of channels and applies the teacher's, on the
    same padded batch; the padding becomes what the teacher's own preprocessor would have put there. ``input_size`` or
    ``scale`` resizes the batch bilinearly, as mmcv's ``Resize`` does by default.

    Args:
        preprocess: 'student' or 'own'.
        input_size: (H, W) of the teacher's batch.
        scale: of the teacher's batch, relative to the student's.
        ours: the student's preprocessing.
        theirs: the teacher's.
    """

    preprocess: str = 'student'
    input_size: tuple[int, int] | None = None
    scale: float | None = None
    ours: Preprocessing = Preprocessing()
    theirs: Preprocessing = Preprocessing()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> TeacherInput:
        """Read the keys of a teacher config whose ``input_mistakes`` are none."""
        given = {key: config[key] for key in INPUT_KEYS if config.get(key) is not None}
        if 'input_size' in given:
            given['input_size'] = tuple(given['input_size'])
        return cls(**given)

    def between(self, student: nn.Module, teacher: nn.Module) -> TeacherInput:
        """Return the same for two models."""
        return replace(self, ours=Preprocessing.of(student), theirs=Preprocessing.of(teacher))

    @property
    def resizes(self) -> bool:
        return self.input_size is not None or self.scale is not None

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (H, W) of the teacher's batch for that of the student's."""
        if self.input_size is not None:
            return self.input_size
        factor = 1.0 if self.scale is None else self.scale
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def __call__(self, images: Tensor, samples: Sequence[Any] | None) -> tuple[Tensor, Sequence[Any] | None]:
        """Return the teacher's images (N, C, H, W) and data samples; the student's where nothing is to be done."""
        if self.preprocess == 'own' and self.ours != self.theirs:
            images = renormalised(images, samples, self.ours, self.theirs)
        size = self.size_of((images.shape[-2], images.shape[-1]))
        if size == tuple(images.shape[-2:]):
            return images, samples
        before = images.shape[-2:]
        images = F.interpolate(images, size=size, mode='bilinear', align_corners=False)
        return images, samples and [resized_sample(sample, before, size) for sample in samples]


def renormalised(images: Tensor, samples: Sequence[Any] | None, ours: Preprocessing, theirs: Preprocessing) -> Tensor:
    """Return images (N, C, H, W) preprocessed as theirs instead of ours.

    Formula: ((x * std + mean) - mean') / std' with one multiplication and one addition for each pixel.
    """
    flip = ours.channel_conversion != theirs.channel_conversion and images.shape[1] == 3
    mean, std, their_mean, their_std = (
        torch.tensor(value, dtype=torch.float64) for value in (ours.mean, ours.std, theirs.mean, theirs.std)
    )
    if flip:
        images, mean, std = images.flip(1), mean.flip(0), std.flip(0)
    factor, shift = std / their_std, (mean - their_mean) / their_std
    factor, shift = (value.to(images).reshape(-1, 1, 1) for value in (factor, shift))
    changed = torch.addcmul(shift, images, factor)
    for image, sample in zip(changed, samples or (), strict=bool(samples)):
        height, width = sample.metainfo.get('img_shape', image.shape[-2:])[:2]
        image[:, height:] = theirs.pad_value
        image[:, :, width:] = theirs.pad_value
    return changed


def resized_sample(sample: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Return a data sample without ground truth that says of an image what is true after resizing its batch."""
    meta = dict(sample.metainfo)
    for key in SHAPES:
        if key in meta:
            meta[key] = tuple(round(n * new / old) for n, old, new in zip(meta[key][:2], before, after, strict=True))
    if 'scale_factor' in meta:
        height, width = (new / old for old, new in zip(before, after, strict=True))
        meta['scale_factor'] = (meta['scale_factor'][0] * width, meta['scale_factor'][1] * height)
    return type(sample)(metainfo=meta)
