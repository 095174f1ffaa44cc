"""Work dirs as mmengine leaves them, with a tiny model, for the tests of reports and tools."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

CLASSES = ('background', 'zero', 'one', 'two')

STUDENT = dict(type='TinySegmentor', width=4)


@MODELS.register_module(force=True)
class TinySegmentor(nn.Module):
    """One convolution and a classifier: 3 * 9 * width + width + 4 * width + 4 parameters."""

    def __init__(self, width: int, data_preprocessor: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.conv_seg = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Tensor:
        """Return logits [N, 4, H, W]."""
        return self.conv_seg(self.conv(inputs).relu())


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a config that trains by iterations; ``changes`` replace its top-level entries."""
    return {
        'default_scope': 'mmengine',
        'model': copy.deepcopy(STUDENT),
        'data_preprocessor': dict(type='SegDataPreProcessor', size=(32, 48)),
        'train_cfg': dict(type='IterBasedTrainLoop', max_iters=400, val_interval=100),
        'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.1)),
        'param_scheduler': [dict(type='PolyLR', power=0.9)],
        'train_dataloader': dict(batch_size=8, dataset=dict(type='DigitScenes')),
        'val_dataloader': dict(batch_size=1, dataset=dict(type='DigitScenes', pipeline=[])),
        'randomness': dict(seed=0),
        'default_hooks': dict(
            logger=dict(type='LoggerHook', log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', save_best='mIoU'),
        ),
        **changes,
    }


def distilled(**changes: Any) -> dict[str, Any]:
    """Return ``recipe`` with its model as the student of a distillation."""
    model = dict(type='kdplugin.Distiller', student=copy.deepcopy(STUDENT), teacher=dict(), pairs=dict())
    return recipe(model=model, custom_hooks=[dict(type='kdplugin.DistillationHook')], **changes)


def train_line(step: int, kd: bool = False, **extra: float) -> dict[str, float]:
    """Return a training line of scalars.json: falling losses with a ripple, and KD terms if asked."""
    ripple = 1 + 0.1 * math.sin(step / 7)
    task = 2.0 * math.exp(-step / 200) * ripple + 0.3
    line: dict[str, float] = {'lr': 0.1, 'data_time': 0.01, 'decode.loss_ce': task, 'decode.acc_seg': 90.0}
    line |= {'time': 0.25 if kd else 0.2, 'iter': step, 'epoch': 1, 'memory': 0, 'step': step, 'loss': task}
    if kd:
        decay = math.exp(-step / 300) * ripple
        terms = {'logits': (3.0 * decay, 0.5), 'low': (0.8 * decay, 0.3 * min(1.0, step / 200))}
        for name, (raw, weight) in terms.items():
            line |= {f'loss_kd_{name}': raw * weight, f'kd_{name}_raw': raw, f'kd_{name}_weight': weight}
        line |= {'kd_task': task, 'loss': task + sum(raw * weight for raw, weight in terms.values())}
    return line | extra


def class_values(mean: float) -> list[float]:
    """Return an IoU for each class with the mean ``mean`` to two decimals."""
    return [round(mean + shift, 2) for shift in (30.0, -20.0, -10.0, 0.0)]


def val_line(step: int, mean: float) -> dict[str, float]:
    """Return a validation line as mmseg's IoUMetric has it written."""
    return {'aAcc': 90.0, 'mIoU': mean, 'mAcc': mean + 5, 'data_time': 0.1, 'time': 0.3, 'step': step}


def class_table(values: list[float]) -> str:
    """Return the table that IoUMetric prints, as PrettyTable lays it out."""
    edge = '+------------+-------+-------+'
    rows = [f'| {name:^10} | {value:5} | {value:5} |' for name, value in zip(CLASSES, values, strict=True)]
    return '\n'.join([edge, '|   Class    |  IoU  |  Acc  |', edge, *rows, edge])


def text_log(means: list[float]) -> str:
    """Return a log with one class table for each validation."""
    stamp = '2025/01/01 00:00:00 - mmengine - INFO - '
    parts = [
        f'{stamp}per class results:\n{stamp}\n{class_table(class_values(mean))}\n{stamp}mIoU: {mean}' for mean in means
    ]
    return '\n'.join(parts) + '\n'


def write_segment(root: Path, stamp: str, lines: list[dict[str, float]], config: dict[str, Any], log: str = '') -> Path:
    """Write what one process leaves behind and return its folder."""
    folder = root / stamp
    (folder / 'vis_data').mkdir(parents=True)
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (folder / 'vis_data' / 'scalars.json').write_text(text)
    Config(copy.deepcopy(config)).dump(folder / 'vis_data' / 'config.py')
    (folder / f'{stamp}.log').write_text(log)
    return folder


def save_checkpoint(path: Path, width: int = 4, **extra: Any) -> dict[str, Tensor]:
    """Write a training checkpoint of ``TinySegmentor`` and return its weights."""
    model = TinySegmentor(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    content = {
        'meta': {
            'dataset_meta': {'classes': CLASSES, 'palette': [[0, 0, 0]]},
            'iter': 100,
            'cfg': 'model = dict()',
        },
        'state_dict': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'message_hub': {'log_scalars': {}},
        'param_schedulers': [],
        **extra,
    }
    torch.save(content, path)
    return model.state_dict()


def make_run(
    root: Path, means: list[float], kd: bool = False, config: dict[str, Any] | None = None, width: int = 4
) -> Path:
    """Write a whole finished run: a validation every 100 iterations, checkpoints of the best and of the last."""
    lines: list[dict[str, float]] = []
    for number, mean in enumerate(means, start=1):
        lines += [train_line(step, kd) for step in range(100 * number - 90, 100 * number + 1, 10)]
        lines.append(val_line(100 * number, mean))
    config = config or (distilled() if kd else recipe())
    write_segment(root, '20250101_000000', lines, config, text_log(means))
    best, last = 100 * (means.index(max(means)) + 1), 100 * len(means)
    save_checkpoint(root / f'best_mIoU_iter_{best}.pth', width)
    save_checkpoint(root / f'iter_{last}.pth', width)
    return root
