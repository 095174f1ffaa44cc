# ruff: noqa: E501 - a table: one fault in a line
"""The kinds of fault in the distillation, the schedule, the optimizer and the hooks."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from preflight_cases.faults import COCO, DET, DROP, SEG, Fault, rename

PAIRS, MODEL = 'model.pairs', 'model.student'


def _rename_pair(config: Config) -> None:
    config.model.pairs = ConfigDict(loss_neck=config.model.pairs.neck)


def _nest(config: Config) -> None:
    config.model = ConfigDict({**config.model, 'student': config.model})


def _other_classes(config: Config) -> None:
    config.model.teacher = ConfigDict(cfg='gfl_teacher_5.py', checkpoint='gfl_teacher_5.pth')


def _reorder(config: Config) -> None:
    config.model.teacher = ConfigDict(cfg='gfl_teacher_order.py', checkpoint='gfl_teacher.pth')


def _flip(config: Config) -> None:
    steps = config.train_dataloader.dataset.pipeline
    steps.insert(3, ConfigDict(type='RandomFlip', prob=0.5))


DISTILLATION = (
    Fault('wrong student tap', DET, {f'{PAIRS}.neck': dict(student_tap='nek', teacher_tap='neck', loss=dict(type='kdplugin.PKDLoss'))}, f'{PAIRS}.neck.student_tap', "of the student but got 'nek'", "Did you mean 'neck'", full=True),
    Fault('wrong teacher tap', DET, {f'{PAIRS}.cls.tap': DROP, f'{PAIRS}.cls.student_tap': 'bbox_head.gfl_cls', f'{PAIRS}.cls.teacher_tap': 'bbox_head.gfl_clss'}, f'{PAIRS}.cls.teacher_tap', "of the teacher but got 'bbox_head.gfl_clss'", "'bbox_head.gfl_cls'", full=True),
    Fault('a tap with model. before it', DET, {f'{PAIRS}.neck.tap': 'model.neck'}, f'{PAIRS}.neck.tap', "'model.neck'", "Did you mean 'neck'", full=True),
    Fault('a tap that does not fire', DET, {f'{PAIRS}.neck.tap': 'bbox_head.loss_cls'}, f'{PAIRS}.neck', 'did not run|to fire|tensors', 'Tap', full=True),
    Fault('unknown loss', DET, {f'{PAIRS}.neck.loss.type': 'kdplugin.PKDLos'}, f'{PAIRS}.neck', "'kdplugin.PKDLos'", "Did you mean 'kdplugin.PKDLoss'"),
    Fault('loss without prefix', DET, {f'{PAIRS}.neck.loss.type': 'PKDLoss'}, f'{PAIRS}.neck', "'PKDLoss'", "'kdplugin.PKDLoss'"),
    Fault("the host's loss in a pair", DET, {f'{PAIRS}.neck.loss': dict(type='MSELoss')}, f'{PAIRS}.neck', 'a distillation loss', 'Write the type with its prefix'),
    Fault('a loss argument that it does not take', DET, {f'{PAIRS}.neck.loss.loss_weight': 2.0}, f'{PAIRS}.neck', 'loss_weight', 'Correct its arguments'),
    Fault('unknown key of a pair', DET, {f'{PAIRS}.neck.wieght': 2.0}, f'{PAIRS}.neck', "'wieght'", "Did you mean 'weight'"),
    Fault('negative weight', DET, {f'{PAIRS}.neck.weight': -1.0}, f'{PAIRS}.neck', '-1.0', 'Give a number'),
    Fault('a pair without tap', DET, {f'{PAIRS}.neck.tap': DROP}, f'{PAIRS}.neck', 'to have loss and tap', 'Write dict(tap='),
    Fault("'loss' in the name of a pair", DET, {}, f'{PAIRS}.loss_neck', "without 'loss'", 'Rename the pair', also=_rename_pair),
    Fault('weight and target_ratio', DET, {f'{PAIRS}.neck.target_ratio': 0.5}, f'{PAIRS}.neck', 'either weight or target_ratio', 'Keep one of them'),
    Fault('unknown key of the Distiller', DET, {'model.pair': {}}, 'model', "'pair'", "Did you mean 'pairs'"),
    Fault('unknown key of the teacher', DET, {'model.teacher.ckpt': 'x.pth'}, 'model.teacher', "'ckpt'", ''),
    Fault('cfg and model of a teacher', DET, {'model.teacher.model': dict(type='GFL')}, 'model.teacher', 'either cfg or model', 'Give one of them'),
    Fault('no teacher', DET, {'model.teacher': DROP}, 'model', 'a teacher for the pairs', 'Write teacher=dict'),
    Fault('a Distiller in a Distiller', DET, {}, 'model.student', 'another kdplugin.Distiller', 'student=_base_.model.student', also=_nest),
    Fault('logits of other classes', DET, {}, f'{PAIRS}.cls', 'to predict the same classes', 'Use a teacher trained on the same classes', full=True, also=_other_classes),
    Fault('teacher of classes in another order', DET, {}, 'model.teacher', 'the same classes in the same order', 'give both the same order', level='warning', also=_reorder),
    Fault('unequal pyramids', DET, {f'{MODEL}.neck.num_outs': 4, f'{MODEL}.bbox_head.anchor_generator.strides': [8, 16, 32, 64]}, f'{PAIRS}.', 'tensors', 'Tap layers', full=True),
    Fault('frozen matches nothing', DET, {'model.frozen': ['backbon.*']}, 'model.frozen', "'backbon.*' matches nothing", 'Name a module', full=True),
    Fault('everything frozen', DET, {'model.frozen': ['backbone', 'neck', 'bbox_head']}, 'model.frozen', 'something left to train', 'Remove a pattern', full=True),
    Fault('frozen before the tap', DET, {'model.frozen': ['backbone', 'neck'], f'{PAIRS}.neck.loss': dict(type='kdplugin.PKDLoss')}, f'{PAIRS}.neck', 'a gradient from student tap', 'Unfreeze', full=True),
    Fault('frozen as a text', DET, {'model.frozen': 'backbone'}, 'model', 'frozen to be a list', "frozen=['backbone']"),
    Fault('strides far apart', SEG, {f'{PAIRS}.mid.student_tap': 'backbone.features.0', f'{PAIRS}.mid.teacher_tap': 'backbone.layer4'}, f'{PAIRS}.mid', 'about the same stride', 'Tap stages of equal stride', level='warning', full=True),
    Fault('a term that drowns the task', SEG, {f'{PAIRS}.mid.weight': 1e6}, f'{PAIRS}.mid.weight', 'times the task', 'Lower the weight', level='warning', full=True),
    Fault('a term lost beside the task', SEG, {f'{PAIRS}.mid.weight': 1e-7}, f'{PAIRS}.mid.weight', 'times the task', 'Raise the weight', level='warning', full=True),
    Fault('preprocess misspelt', DET, {'model.teacher.preprocess': 'onw'}, 'model.teacher', "'onw'", "Did you mean 'own'"),
    Fault('alpha and task_weight', DET, {'model.alpha': 0.5, 'model.task_weight': 1.0}, 'model', 'either alpha or task_weight', 'alpha implies task_weight'),
    Fault('unknown kind of schedule', DET, {f'{PAIRS}.neck.weight': dict(kind='cosin', start=1.0, stop=0.0)}, f'{PAIRS}.neck', "'cosin'", "Did you mean 'cosine'"),
    Fault('another teacher named', DET, {f'{PAIRS}.neck.teacher': 'big'}, 'model', "teachers=dict(big=", 'Leave teacher out'),
)  # fmt: skip

TRAINING = (
    Fault('warm-up longer than the run', SEG, {f'{PAIRS}.mid.warmup': 5000}, f'{PAIRS}.mid.warmup', 'a warm-up within 700 iterations', 'lower it'),
    Fault('a stop beyond the run', SEG, {f'{PAIRS}.mid.stop_after': 5000}, f'{PAIRS}.mid.stop_after', 'a stop within 700 iterations', 'lower it', level='warning'),
    Fault('epochs in a run of iterations', SEG, {f'{PAIRS}.mid.stop_after': 10, f'{PAIRS}.mid.by_epoch': True}, f'{PAIRS}.mid', 'counts no epochs', 'Write it in iterations'),
    Fault('a phase that never begins', SEG, {f'{PAIRS}.mid.weight': [dict(kind='constant', start=1.0, end=900), dict(kind='linear', start=1.0, stop=0.0, begin=900, end=1000)]}, f'{PAIRS}.mid.weight', 'to begin within 700 iterations', 'correct begin'),
    Fault('calibration longer than the run', SEG, {f'{PAIRS}.mid.weight': DROP, f'{PAIRS}.mid.target_ratio': 0.5, f'{PAIRS}.mid.calibration_iters': 900}, f'{PAIRS}.mid.calibration_iters', 'a calibration within 700', 'Lower it'),
    Fault('a scheduler of epochs in a run of iterations', SEG, {'param_scheduler.0.by_epoch': True}, 'param_scheduler.0.by_epoch', 'would never act', 'write by_epoch=False'),
    Fault('a scheduler that begins after the end', DET, {'param_scheduler.1.begin': 20, 'param_scheduler.1.end': 40}, 'param_scheduler.1.begin', 'begin=20', 'correct it'),
    Fault('milestones beyond the end', DET, {'param_scheduler.1.milestones': [16, 22]}, 'param_scheduler.1.milestones', '[16, 22]', 'correct them', level='warning'),
    Fault('a scheduler without its arguments', SEG, {'param_scheduler': [dict(type='MultiStepLR', by_epoch=False)]}, 'param_scheduler.0', 'Expected milestones', 'Add it'),
    Fault('the length in the wrong unit', DET, {'train_cfg': dict(type='EpochBasedTrainLoop', max_iters=90000)}, 'train_cfg', 'max_iters', ''),
    Fault('no validation before the end', DET, {'train_cfg.val_interval': 50}, 'train_cfg.val_interval', 'a validation within 12 epochs', 'lower val_interval', level='warning'),
    Fault('length 0', DET, {'train_cfg.max_epochs': 0}, 'train_cfg.max_epochs', 'got 0', 'Count epochs'),
    Fault('EMA that begins after the end', SEG, {'custom_hooks': [dict(type='EMAHook', begin_iter=1000)]}, 'custom_hooks.0.begin_iter', 'would never act', 'lower it'),
    Fault('a hook of epochs in a run of iterations', SEG, {'custom_hooks': [dict(type='EMAHook', begin_epoch=3)]}, 'custom_hooks.0.begin_epoch', 'would never act', 'give iterations'),
    Fault('checkpoints of epochs in a run of iterations', SEG, {'default_hooks.checkpoint.by_epoch': True}, 'default_hooks.checkpoint.by_epoch', 'Nothing is saved before the end', 'write by_epoch=False'),
    Fault('a checkpoint interval beyond the end', DET, {'default_hooks.checkpoint.interval': 50}, 'default_hooks.checkpoint.interval', 'interval=50', 'lower it', level='warning'),
    Fault('no checkpoints', DET, {'default_hooks.checkpoint': None}, 'default_hooks.checkpoint', 'checkpoint=None', 'remove the line', level='warning'),
    Fault('the best by a metric that is not measured', DET, {'default_hooks.checkpoint.save_best': 'mIoU'}, 'default_hooks.checkpoint.save_best', 'never measured', 'Choose one'),
    Fault('the best by a metric without its prefix', DET, {'default_hooks.checkpoint.save_best': 'bbox_mAP'}, 'default_hooks.checkpoint.save_best', "'bbox_mAP'", "Did you mean 'coco/bbox_mAP'"),
    Fault('early stopping by a metric that is not measured', SEG, {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')]}, 'custom_hooks.0.monitor', 'never measured', 'Choose one'),
    Fault('the same hook twice', DET, {'custom_hooks': [dict(type='EMAHook'), dict(type='EMAHook')]}, 'custom_hooks', '2 of EMAHook', 'keep one', level='warning'),
    Fault('the learning rate as a text', DET, {'optim_wrapper.optimizer.lr': '0.01'}, 'optim_wrapper.optimizer.lr', "'0.01'", 'without quotes'),
    Fault('a learning rate that is too large', DET, {'optim_wrapper.optimizer.lr': 20.0}, 'optim_wrapper.optimizer.lr', 'got 20', 'Correct lr', level='warning'),
    Fault('no optimizer', DET, {'optim_wrapper.optimizer': DROP}, 'optim_wrapper.optimizer', 'Expected an optimizer', 'Write optimizer=dict'),
    Fault('clip_grad as a number', DET, {'optim_wrapper.clip_grad': 35}, 'optim_wrapper.clip_grad', 'to be a dict|a dict but got 35', 'max_norm=35'),
    Fault('custom keys that name nothing', DET, {'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbne': dict(lr_mult=0.1)})}, 'optim_wrapper.paramwise_cfg.custom_keys', "'backbne'", 'correct or remove it', level='warning', full=True),
    Fault('custom keys that name frozen parts', DET, {'model.frozen': ['backbone'], 'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(lr_mult=0.1)})}, 'optim_wrapper.paramwise_cfg.custom_keys', 'frozen ones alone', 'do not freeze', level='warning', full=True),
    Fault('decay by layer without decay', DET, {'optim_wrapper.optimizer': dict(type='SGD', lr=0.01), 'optim_wrapper.paramwise_cfg': dict(norm_decay_mult=0.0)}, 'optim_wrapper', 'base_wd', '', full=True),
    Fault('loss_scale without AMP', DET, {'optim_wrapper.loss_scale': 'dynamic'}, 'optim_wrapper.loss_scale', 'OptimWrapper', 'Set the type|It belongs'),
    Fault('an unknown dtype', DET, {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'fp16'}, 'optim_wrapper.dtype', "'fp16'", "Did you mean 'float16'"),
    Fault('the batch does not fit the rate', DET, {'train_dataloader.batch_size': 2}, 'auto_scale_lr', 'batches of 16', 'auto_scale_lr.enable=True', level='warning'),
    Fault('auto_scale_lr without its batch', DET, {'auto_scale_lr': dict(enable=True)}, 'auto_scale_lr.base_batch_size', 'got None', 'Give base_batch_size'),
    Fault("the student's rate changed", DET, {'optim_wrapper.optimizer.lr': 0.02}, 'optim_wrapper.optimizer.lr', 'the recipe of gfl_student.py', 'train the baseline with it too', level='warning'),
    Fault("the student's decay changed", DET, {'optim_wrapper.optimizer.weight_decay': 0.05}, 'optim_wrapper.optimizer.weight_decay', 'the recipe of gfl_student.py', 'train the baseline with it too', level='warning'),
    Fault("the student's schedule changed", DET, {'train_cfg.max_epochs': 24}, 'train_cfg.max_epochs', 'the recipe of gfl_student.py', 'train the baseline with it too', level='warning'),
    Fault("the student's augmentation changed", DET, {}, 'train_dataloader.dataset.pipeline', 'the recipe of gfl_student.py', 'train the baseline with it too', level='warning', also=_flip),
    Fault('parameters without gradient', DET, {f'{MODEL}.backbone.out_indices': (0, 1, 2), f'{MODEL}.neck.in_channels': [8, 16, 32], f'{MODEL}.neck.num_outs': 4, f'{MODEL}.bbox_head.anchor_generator.strides': [8, 16, 32, 64], 'model.pairs': {}}, 'training step', 'a gradient at every trained parameter', 'set find_unused_parameters=True', level='warning', full=True),
    Fault('channels that do not fit', DET, {f'{MODEL}.neck.in_channels': [8, 16, 32, 32], 'model.pairs': {}}, 'training step', 'one training step', '', full=True),
    Fault('losses that are not finite', DET, {f'{MODEL}.data_preprocessor.std': [0.0, 57.12, 57.375], 'model.pairs': {}}, 'training step', 'finite losses', 'Check the image normalisation', full=True),
    Fault('an unknown start method', DET, {'env_cfg.mp_cfg.mp_start_method': 'forks'}, 'env_cfg.mp_cfg.mp_start_method', "'forks'", "Did you mean 'fork'"),
    Fault('an unknown log level', DET, {'log_level': 'INFOS'}, 'log_level', "'INFOS'", "Did you mean 'INFO'"),
    Fault('a pipeline that fails on its first image', DET, {'train_dataloader.dataset.pipeline.2.scale_factor': DROP}, 'train_dataloader', '', '', full=True),
    Fault('a validation that fails', DET, {f'{MODEL}.test_cfg.score_thr': DROP}, 'val_dataloader', 'the student to predict', '', full=True),
    Fault('projection beside load_from', DET, {'load_from': 'student_weights.pth', 'custom_hooks': [dict(type='kdplugin.WeightProjectionHook', source='gfl_teacher.pth', target='')]}, 'custom_hooks', 'either WeightProjectionHook or load_from', 'Remove one of them', full=True),
    Fault('projection from a file that is missing', DET, {'custom_hooks': [dict(type='kdplugin.WeightProjectionHook', source='gone.pth')]}, 'custom_hooks', 'gone.pth', '', full=True),
)  # fmt: skip


def renamed_lr(config: Config) -> None:
    rename('optim_wrapper.optimizer.lr', 'learning_rate')(config)


MORE = (
    Fault('learning_rate for lr', DET, {}, 'optim_wrapper.optimizer.learning_rate', "'learning_rate'", '', also=renamed_lr),
    Fault('a key that no transform takes', COCO, {'train_dataloader.dataset.pipeline.1.with_boxes': True}, 'train_dataloader.dataset.pipeline.1.with_boxes', "'with_boxes'", "Did you mean 'with_bbox'"),
)  # fmt: skip
