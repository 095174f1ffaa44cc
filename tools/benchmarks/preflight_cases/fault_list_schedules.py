# ruff: noqa: E501 - a table: one fault in a line
"""Faults of schedules, hooks and loops: what acts at the wrong time, in the wrong unit, or on the wrong number."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from preflight_cases.faults import DET, DROP, SEG, Fault

SCHEDULER, LOOP, PAIRS, OPTIM = 'param_scheduler', 'train_cfg', 'model.pairs', 'optim_wrapper'
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP')
STOP = dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')
BEST = 'default_hooks.checkpoint'


def _warm_up_twice(config: Config) -> None:
    config.param_scheduler.append(ConfigDict(config.param_scheduler[0].to_dict()))


SCHEDULES = (
    Fault('the worst checkpoint is kept', DET, {f'{BEST}.save_best': 'coco/bbox_mAP', f'{BEST}.rule': 'less'}, f'{BEST}.rule', "rule='greater' for coco/bbox_mAP", "write rule='greater'"),
    Fault('a rate that falls while the metric rises', DET, {SCHEDULER: [PLATEAU]}, f'{SCHEDULER}.0.rule', "'less', the default", "write rule='greater'"),
    Fault('stopped while the metric rises', DET, {'custom_hooks': [dict(STOP, rule='less', min_delta=0.001)]}, 'custom_hooks.0.rule', 'The worst value would count', "write rule='greater'"),
    Fault('a gain of ten points is waited for', DET, {'custom_hooks': [STOP]}, 'custom_hooks.0.min_delta', 'from 0 to 1', 'write min_delta=0.001', level='warning'),
    Fault('stopped at 0.8 percent', SEG, {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='mIoU', stopping_threshold=0.8)]}, 'custom_hooks.0.stopping_threshold', 'in percent', 'write 80', level='warning'),
    Fault('no patience', SEG, {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='mIoU', patience=0)]}, 'custom_hooks.0.patience', 'without a gain', 'write 5', level='warning'),
    Fault('a number that COCO has not', DET, {'val_evaluator.metric_items': ['AP']}, 'val_evaluator.metric_items', "'AP'", 'Choose one'),
    Fault('the best by a number that is left out', DET, {'val_evaluator.metric_items': ['mAP_50'], f'{BEST}.save_best': 'coco/bbox_mAP'}, f'{BEST}.save_best', 'never measured', "'coco/bbox_mAP_50'"),
    Fault('a prefix that save_best does not know', DET, {'val_evaluator.prefix': 'my', f'{BEST}.save_best': 'coco/bbox_mAP'}, f'{BEST}.save_best', 'never measured', "Did you mean 'my/bbox_mAP'"),
    Fault('the best of what is only written', DET, {'val_evaluator.format_only': True, 'val_evaluator.outfile_prefix': 'out', f'{BEST}.save_best': 'coco/bbox_mAP'}, f'{BEST}.save_best', 'measures nothing', 'Remove format_only'),
    Fault('a rate that waits for what is not measured', DET, {SCHEDULER: [dict(PLATEAU, monitor='mIoU', rule='greater')]}, f'{SCHEDULER}.0.monitor', 'never measured', "'coco/bbox_mAP'"),
    Fault('milestones of epochs as iterations', DET, {f'{SCHEDULER}.1.by_epoch': False}, f'{SCHEDULER}.1.by_epoch', 'milestones=[8, 11] with by_epoch=False', 'write by_epoch=True'),
    Fault('a step of epochs as iterations', DET, {SCHEDULER: [dict(type='StepLR', step_size=8, by_epoch=False)]}, f'{SCHEDULER}.0.by_epoch', 'step_size=8', 'write by_epoch=True'),
    Fault('a decay in each iteration', SEG, {SCHEDULER: [dict(type='ExponentialLR', gamma=0.1, by_epoch=False)]}, f'{SCHEDULER}.0.gamma', 'below a millionth', 'write gamma=0.99'),
    Fault('milestones as shares', DET, {f'{SCHEDULER}.1.milestones': [0.6, 0.9]}, f'{SCHEDULER}.1.milestones', '[0.6, 0.9]', 'write [8, 11]'),
    Fault('no milestones', DET, {f'{SCHEDULER}.1.milestones': []}, f'{SCHEDULER}.1.milestones', 'got none', 'write [8, 11]'),
    Fault('a polynomial that ends half-way', SEG, {SCHEDULER: [dict(type='PolyLR', by_epoch=False, end=350)]}, f'{SCHEDULER}.0.end', 'got end=350', 'set end to 700', level='warning'),
    Fault('a cosine that ends half-way', SEG, {SCHEDULER: [dict(type='CosineAnnealingLR', by_epoch=False, T_max=350, end=350)]}, f'{SCHEDULER}.0.end', 'got end=350', 'set end to 700, and T_max', level='warning'),
    Fault('milestones of a shorter training', DET, {f'{LOOP}.max_epochs': 36}, f'{SCHEDULER}.1.milestones', 'got 11', 'write [24, 33]', level='warning'),
    Fault('a warm-up of the whole training', DET, {f'{SCHEDULER}.0': dict(type='LinearLR', start_factor=0.001, by_epoch=True, begin=0, end=12)}, f'{SCHEDULER}.0.end', '12 epochs of it', 'lower end', level='warning'),
    Fault('two warm-ups', DET, {}, f'{SCHEDULER}.2', 'param_scheduler.0 besides', 'remove one', level='warning', also=_warm_up_twice),
    Fault('converted though it counts iterations', DET, {f'{SCHEDULER}.0.convert_to_iter_based': True}, f'{SCHEDULER}.0.convert_to_iter_based', 'got by_epoch=False', 'remove convert_to_iter_based'),
    Fault('a constant that begins late', SEG, {f'{PAIRS}.mid.weight': dict(kind='constant', start=1.0, begin=300)}, f'{PAIRS}.mid.weight.begin', 'no effect', 'start=0, end=300', level='warning'),
    Fault('a constant that ends', SEG, {f'{PAIRS}.mid.weight': dict(kind='constant', start=1.0, end=300)}, f'{PAIRS}.mid.weight.end', 'no effect', 'stop_after=300', level='warning'),
    Fault('a weight that falls in epochs without by_epoch', DET, {f'{PAIRS}.neck.weight': dict(kind='linear', start=1.0, stop=0.0, begin=0, end=12)}, f'{PAIRS}.neck.weight', 'before the first epoch', 'by_epoch=True', level='warning'),
    Fault('a task that comes in epochs without by_epoch', DET, {'model.task_weight': dict(kind='linear', start=0.0, stop=1.0, begin=0, end=8)}, 'model.task_weight', 'before the first epoch', 'by_epoch=True', level='warning'),
    Fault('a schedule of nothing', SEG, {f'{PAIRS}.mid.weight': dict(kind='linear', start=0.0, stop=0.0)}, f'{PAIRS}.mid.weight', '0 throughout', 'correct start or stop', level='warning'),
    Fault('an average twice', DET, {'default_hooks.ema': dict(type='EMAHook'), 'custom_hooks': [dict(type='EMAHook')]}, 'custom_hooks', 'default_hooks.ema besides', 'keep one', level='warning'),
)  # fmt: skip
