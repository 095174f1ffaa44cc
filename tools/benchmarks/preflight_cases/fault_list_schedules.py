# ruff: noqa: E501 - a table: one fault in a line
"""Faults of schedules, hooks and loops: what acts at the wrong time, in the wrong unit, or on the wrong number."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from preflight_cases.faults import COCO, DET, SEG, Fault

SCHEDULER, LOOP, PAIRS, OPTIM = 'param_scheduler', 'train_cfg', 'model.pairs', 'optim_wrapper'
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP')
STOP = dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')
BEST = 'default_hooks.checkpoint'


def _warm_up_twice(config: Config) -> None:
    config.param_scheduler.append(ConfigDict(config.param_scheduler[0].to_dict()))


def _second_teacher(config: Config) -> None:
    teacher = config.model.pop('teacher')
    config.model.teachers = ConfigDict(new=teacher, old=ConfigDict(teacher.to_dict(), weight=0))
    config.model.pairs.neck.teacher, config.model.pairs.cls.teacher = 'new', 'old'


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
    Fault('a rate that OneCycleLR does not read', SEG, {f'{OPTIM}.optimizer.lr': 3e-5}, f'{OPTIM}.optimizer.lr', 'eta_max=', 'set eta_max', level='warning'),
    Fault('a scaled rate that OneCycleLR does not read', SEG, {'auto_scale_lr': dict(enable=True, base_batch_size=64)}, 'auto_scale_lr.enable', 'has no effect', 'by hand', level='warning'),
    Fault('a rate that starts at 0', DET, {f'{SCHEDULER}.0.start_factor': 0.0}, f'{SCHEDULER}.0.start_factor', 'divided by', 'start_factor=0.001'),
    Fault('a power as a text', SEG, {SCHEDULER: [dict(type='PolyLR', power='0.9', by_epoch=False)]}, f'{SCHEDULER}.0.power', "'0.9'", 'without quotes'),
    Fault('an average slower than the training', SEG, {'custom_hooks': [dict(type='EMAHook')]}, 'custom_hooks.0.momentum', 'its first ones', 'Write momentum=0.01', level='warning'),
    Fault('an average that is never updated', SEG, {'custom_hooks': [dict(type='EMAHook', interval=5000)]}, 'custom_hooks.0.interval', 'interval=5000', 'write 1'),
    Fault('an average that is swapped back too late', SEG, {'custom_hooks': [dict(type='EMAHook', momentum=0.01, priority='LOWEST')]}, 'custom_hooks.0.priority', 'not measured', 'leave priority out', level='warning'),
    Fault('accumulated batches that are scaled', DET, {f'{OPTIM}.accumulative_counts': 2, 'auto_scale_lr.enable': True}, 'auto_scale_lr.enable', 'accumulative_counts=2', 'base_batch_size=8', level='warning'),
    Fault('another batch, though accumulated', DET, {'train_dataloader.batch_size': 2, f'{OPTIM}.accumulative_counts': 4}, 'auto_scale_lr', '4 accumulated = 8', 'Multiply lr by 0.5', level='warning'),
    Fault('momentum 9', DET, {f'{OPTIM}.optimizer.momentum': 9}, f'{OPTIM}.optimizer.momentum', 'without end', 'write 0.9'),
    Fault('weight decay 5', DET, {f'{OPTIM}.optimizer.weight_decay': 5.0}, f'{OPTIM}.optimizer.weight_decay', 'shrink to nothing', 'write 0.0001', level='warning'),
    Fault('gradients that are cut to nothing', DET, {f'{OPTIM}.clip_grad': dict(max_norm=1e-4)}, f'{OPTIM}.clip_grad.max_norm', 'Nothing would learn', '35', level='warning'),
    Fault('a switch of a data set that cannot', DET, {'custom_hooks': [dict(type='YOLOXModeSwitchHook', num_last_epochs=5)]}, 'custom_hooks.0', 'MultiImageMixDataset', 'PipelineSwitchHook'),
    Fault('a teacher that should follow its student', DET, {'custom_hooks': [dict(type='MeanTeacherHook')]}, 'custom_hooks.0', 'is frozen', 'remove the hook'),
    Fault('a detector saved as a pipeline', DET, {'custom_hooks': [dict(type='kdplugin.SavePretrainedHook')]}, 'custom_hooks.0', 'a model of diffusers', 'remove the hook'),
    Fault('a number of checkpoints as a text', DET, {f'{BEST}.max_keep_ckpts': '3'}, f'{BEST}.max_keep_ckpts', "'3'", 'max_keep_ckpts=3'),
    Fault('a pattern that is none', SEG, {'log_processor.mean_pattern': '*.loss'}, 'log_processor.mean_pattern', 'nothing to repeat', '.*(loss'),
    Fault('a window of an epoch in iterations', SEG, {'log_processor.custom_cfg': [dict(data_src='loss', method_name='mean', window_size='epoch')]}, 'log_processor.custom_cfg.0.window_size', "'epoch'", 'window_size=100'),
    Fault('half a change of the interval', DET, {f'{LOOP}.dynamic_intervals': [(8,)]}, f'{LOOP}.dynamic_intervals', 'a list of pairs', '[(8, 1)]'),
    Fault('validation as a training', DET, {'val_cfg': dict(type='EpochBasedTrainLoop', max_epochs=1)}, 'val_cfg.type', 'Expected ValLoop', "type='ValLoop'"),
    Fault('training as a validation', DET, {LOOP: dict(type='ValLoop')}, 'train_cfg.type', 'a training loop', "'EpochBasedTrainLoop'"),
    Fault('validation as a test', DET, {'val_cfg.type': 'TestLoop'}, 'val_cfg.type', 'got TestLoop', "type='ValLoop'"),
    Fault('a validation after each iteration', SEG, {f'{LOOP}.val_interval': 1}, f'{LOOP}.val_interval', 'every 1 iterations', 'epochs', level='warning'),
    Fault('a checkpoint after each iteration', SEG, {f'{BEST}.interval': 1, f'{BEST}.by_epoch': False}, f'{BEST}.interval', 'every 1 iterations', 'epochs', level='warning'),
    Fault('weights at an address that nobody reads', COCO, {'load_from': 'htps://download.openmmlab.com/x.pth'}, 'load_from', 'htps', "Did you mean 'https://'"),
    Fault('a teacher at an address that nobody reads', COCO, {'model.teacher.checkpoint': 'htps://download.openmmlab.com/x.pth'}, 'model.teacher.checkpoint', 'htps', "Did you mean 'https://'"),
    Fault('a teacher of weight 0', DET, {}, 'model.teachers.old.weight', 'Its pairs do nothing', 'remove the teacher', level='warning', also=_second_teacher),
)  # fmt: skip
