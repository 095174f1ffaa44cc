"""Teacher outputs on disk, for trainings whose pipeline gives the same image each time.

N image, C channel, H W pixel.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from safetensors import SafetensorError
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.io import atomic_file, write_text

CACHE_KEYS = ('dir', 'max_bytes')
UNITS = {'': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'TB': 10**12}
LOOKS = 16
"""So many rows and columns of each image are part of its key, to notice pixels that changed."""

Outputs = dict[str, list[Tensor]]


def parse_bytes(text: Any) -> int:
    """Return a number of bytes, such as 20000000000 for '20GB'.

    Raises:
        ConfigError: it is neither a whole number nor one with a unit.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([KMGT]B)?', str(text).strip())
    if match is None or isinstance(text, bool):
        raise ConfigError(f"Expected max_bytes such as '20GB' in teacher.cache but got {text!r}. Correct it.")
    return int(float(match[1]) * UNITS[match[2] or ''])


def cache_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield what is wrong with the ``cache`` of a teacher config."""
    settings = config.get('cache')
    if settings is None:
        return
    if not isinstance(settings, Mapping) or not settings.get('dir'):
        yield ConfigError(
            f"Expected cache=dict(dir='...', max_bytes='20GB') in teacher but got {settings!r}. Write so."
        )
        return
    for key in settings:
        if key not in CACHE_KEYS:
            yield ConfigError(
                f'Expected keys {list(CACHE_KEYS)} in teacher.cache but got {key!r}.{did_you_mean(key, CACHE_KEYS)}'
            )
    try:
        parse_bytes(settings.get('max_bytes'))
    except ConfigError as error:
        yield error


class OutputCache:
    """What a teacher's taps put out for each image, one ``.safetensors`` file for each image and tap.

    A file's name is the hash of all that its content follows from: the ``about`` of the whole cache, the tap, the
    precision, the image's path, id, file time and size, shape, padding and a grid of its pixels. Files are never
    deleted: with ``max_bytes`` in the folder, more images are computed anew each time.

    Args:
        folder: where files go; several trainings may share it.
        max_bytes: of all files below it.
        about: what all images have in common: teacher, transforms, preprocessing.
    """

    def __init__(self, folder: str | Path, max_bytes: int, about: Mapping[str, Any]) -> None:
        text = json.dumps(about, sort_keys=True, indent=1)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.hits = self.misses = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / 'about.json', text)
        used = sum(file.stat().st_size for file in Path(folder).rglob('*.safetensors'))
        self.left = (max_bytes - used) // get_world_size()
        self._full = False

    def outputs(
        self,
        taps: Sequence[str],
        images: Tensor,
        samples: Sequence[Any] | None,
        precision: str,
        run: Callable[[], Outputs],
    ) -> Outputs:
        """Return what the taps put out for a batch: from disk if all of it is there, else by running the teacher.

        Args:
            taps: paths of tapped modules.
            images: the student's batch (N, C, H, W).
            samples: their data samples.
            precision: in which the teacher runs.
            run: runs the teacher; each of its tensors has N entries.
        """
        files = self._files(taps, images, samples, precision)
        found = self._read(files, images.device)
        if found is not None:
            self.hits += len(images)
            return found
        self.misses += len(images)
        computed = run()
        for tap, names in files.items():
            for index, file in enumerate(names):
                self._write(file, [tensor[index : index + 1] for tensor in computed[tap]])
        return computed

    def _files(
        self, taps: Sequence[str], images: Tensor, samples: Sequence[Any] | None, precision: str
    ) -> dict[str, list[Path]]:
        step = max(1, min(images.shape[-2:]) // LOOKS)
        looks = images[..., ::step, ::step].float().cpu().contiguous().numpy()
        texts = [
            json.dumps([precision, tuple(images.shape[1:]), *_identity(sample)], default=str)
            for sample in samples or [None] * len(images)
        ]
        files = {}
        for tap in taps:
            digests = [
                hashlib.sha256(f'{tap}|{text}|'.encode() + look.tobytes())
                for text, look in zip(texts, looks, strict=True)
            ]
            files[tap] = [self.folder / f'{digest.hexdigest()}.safetensors' for digest in digests]
        return files

    def _read(self, files: Mapping[str, Sequence[Path]], device: torch.device) -> Outputs | None:
        if not all(file.is_file() for names in files.values() for file in names):
            return None
        entries = {tap: [self._entry(file, device) for file in names] for tap, names in files.items()}
        if not all(entry for several in entries.values() for entry in several):
            return None
        return {
            tap: [torch.cat([entry[level] for entry in several]) for level in sorted(several[0], key=int)]
            for tap, several in entries.items()
        }

    @staticmethod
    def _entry(file: Path, device: torch.device) -> dict[str, Tensor]:
        """Return the tensors of a file; of a damaged one, which makes room for a new one, none."""
        try:
            return safetensors.torch.load_file(file, device=str(device))
        except (SafetensorError, OSError):
            file.unlink(missing_ok=True)
            return {}

    def _write(self, file: Path, tensors: Sequence[Tensor]) -> None:
        if file.is_file():
            return
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if size + 1000 > self.left:
            self._say_full()
            return
        with atomic_file(file) as temporary:
            content = {str(level): tensor.detach().cpu().contiguous() for level, tensor in enumerate(tensors)}
            safetensors.torch.save_file(content, temporary)
        self.left -= file.stat().st_size

    def _say_full(self) -> None:
        if not self._full:
            print_log(
                f'Expected room for the outputs of all images in {self.folder.parent} but max_bytes is reached. '
                'The teacher runs for the others: raise teacher.cache.max_bytes, or delete what other trainings left.',
                logger='current',
                level=logging.WARNING,
            )
        self._full = True


def _identity(sample: Any) -> list[Any]:
    """Return what tells an image from all others, and an edited file from the one it was."""
    meta = {} if sample is None else sample.metainfo
    names = ('img_path', 'img_id', 'img_shape', 'ori_shape', 'scale_factor', 'flip', 'flip_direction')
    identity: list[Any] = [meta.get(name) for name in names]
    path = meta.get('img_path')
    if isinstance(path, str) and Path(path).is_file():
        status = Path(path).stat()
        identity += [status.st_mtime_ns, status.st_size]
    return identity
