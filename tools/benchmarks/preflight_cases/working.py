"""Working distillations over the models of mmdet and mmseg, written from pairs of their own recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mmdet
import mmseg

from kdplugin.config_files import parse

DATA = ('coco_detection', 'coco_instance', 'cityscapes')
SWAPS = (
    ('r101', 'r50'), ('r50', 'r18'), ('r101', 'r18'), ('mit-b2', 'mit-b0'), ('_s_', '_tiny_'), ('_m_', '_s_'),
    ('x101-32x4d', 'r50'), ('r101b', 'r50b'), ('_b_', '_s_'), ('hr48', 'hr18'), ('_l_', '_s_'), ('d16', 'd8'),
)  # fmt: skip
"""What is exchanged in the name of a teacher to find its student."""
PER_FOLDER = 2
TEXT = """# {student} learns from {teacher}.
_base_ = ['{student}']
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='{teacher}', checkpoint='https://download.openmmlab.com/{stem}.pth'),
    pairs=dict({pairs}))
"""


def recipes(package: str) -> dict[str, Path]:
    """Return the recipes that a package ships, by the name that a config inherits them under."""
    module = {'mmdet': mmdet, 'mmseg': mmseg}[package]
    folder = Path(str(module.__file__)).parent / '.mim' / 'configs'
    return {
        f'{package}::{path.relative_to(folder)}': path
        for path in sorted(folder.rglob('*.py'))
        if '_base_' not in path.parts and not path.name.startswith('_')
    }


def working_pairs(package: str, number: int) -> Iterator[tuple[str, str]]:
    """Yield student and teacher of different families, on data that there are stand-ins for."""
    known, taken = recipes(package), {}  # type: dict[str, Path], dict[str, int]
    count = 0
    for teacher in known:
        folder = teacher.split('/')[0]
        if taken.get(folder, 0) >= PER_FOLDER:
            continue
        for big, small in SWAPS:
            student = teacher.replace(big, small)
            if (
                big in teacher.rpartition('/')[2]
                and student != teacher
                and student in known
                and _usable(known[student])
            ):
                taken[folder] = taken.get(folder, 0) + 1
                yield student, teacher
                count += 1
                break
        if count == number:
            return


def _usable(path: Path) -> bool:
    text = path.read_text()
    if 'Cityscapes' in text or 'cityscapes' in path.name:
        return True
    other = ('panoptic', 'stuff', 'lvis', 'openimages', 'crowd')
    return 'coco' in path.name and not any(word in path.name for word in other)


def write_working(package: str, student: str, teacher: str, file: Path) -> None:
    """Write the config of a distillation with a tap that both models have."""
    model = parse(student).model
    taps = ['neck'] if model.get('neck') is not None else ['backbone']
    losses = dict.fromkeys(taps, "dict(type='kdplugin.PKDLoss')")
    if package == 'mmseg':
        losses['decode_head.conv_seg' if not isinstance(model.decode_head, list) else 'decode_head.1.conv_seg'] = (
            "dict(type='kdplugin.CWDLoss')"
        )
        losses.pop('neck', None)
    pairs = ', '.join(
        f"p{number}=dict(tap='{tap}', loss={loss}, target_ratio=0.5)"
        for number, (tap, loss) in enumerate(losses.items())
    )
    stem = teacher.rpartition('/')[2].removesuffix('.py')
    file.write_text(TEXT.format(student=student, teacher=teacher, stem=stem, pairs=pairs))
