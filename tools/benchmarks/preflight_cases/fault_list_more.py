# ruff: noqa: E501 - a table: one fault in a line
"""More kinds of fault: what engineers get wrong in the parts around a distillation that no type checks by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable

from mmengine.config import Config, ConfigDict

from preflight_cases.faults import COCO, DET, DROP, SEG, WAN, Fault

LOADER, VAL, MODEL, PAIRS = 'train_dataloader', 'val_dataloader', 'model.student', 'model.pairs'
OPTIM = 'optim_wrapper'


def _insert(loader: str, place: int, step: dict) -> Callable[[Config], None]:
    return lambda config: config[loader].dataset.pipeline.insert(place, ConfigDict(step))


def _drop(loader: str, place: int) -> Callable[[Config], None]:
    return lambda config: config[loader].dataset.pipeline.pop(place)


def _swap_splits(config: Config) -> None:
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    for key in ('ann_file', 'data_prefix'):
        train[key], val[key] = val[key], train[key]
    config.val_evaluator.ann_file = 'data/digit_scenes/annotations/train.json'


def _swap_steps(config: Config) -> None:
    steps = config.train_dataloader.dataset.pipeline
    steps[1], steps[3] = steps[3], steps[1]


def _bare_teacher(config: Config) -> None:
    config.model.teacher = ConfigDict(copy.deepcopy(config.model.student))


def _teacher_of_a_model(config: Config) -> None:
    config.model.teacher.cfg = ConfigDict(copy.deepcopy(config.model.student))


def _pair_twice(config: Config) -> None:
    config.model.pairs.again = ConfigDict(copy.deepcopy(config.model.pairs.neck))


def _forget_by_epoch(config: Config) -> None:
    config.param_scheduler[0].pop('by_epoch')


PARTS = (
    Fault('mean of four numbers', DET, {f'{MODEL}.data_preprocessor.mean': [1.0, 2.0, 3.0, 4.0]}, f'{MODEL}.data_preprocessor.mean', '3 numbers', 'Correct mean'),
    Fault('mean as texts', DET, {f'{MODEL}.data_preprocessor.mean': ['123', '116', '103']}, f'{MODEL}.data_preprocessor.mean', '3 numbers', 'Correct mean'),
    Fault('mean without std', DET, {f'{MODEL}.data_preprocessor.std': DROP}, f'{MODEL}.data_preprocessor.std', 'mean and std together', 'Give both or none'),
    Fault('colours turned twice', DET, {f'{MODEL}.data_preprocessor.rgb_to_bgr': True}, f'{MODEL}.data_preprocessor.rgb_to_bgr', 'turn the colours twice', 'keep bgr_to_rgb'),
    Fault('pad_size_divisor 0', DET, {f'{MODEL}.data_preprocessor.pad_size_divisor': 0}, f'{MODEL}.data_preprocessor.pad_size_divisor', 'got 0', 'Give for example 32'),
    Fault('a preprocessor that nobody reads', DET, {'data_preprocessor': dict(type='DetDataPreprocessor', mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])}, 'data_preprocessor', 'which alone is read', 'Keep one of them', level='warning'),
    Fault('a sampler without type', DET, {f'{LOADER}.sampler': dict(shuffle=True)}, f'{LOADER}.sampler.type', 'a type of sampler', "type='DefaultSampler'"),
    Fault('training and validation swapped', DET, {}, f'{LOADER}.dataset.', 'called train', 'Swap them', level='warning', also=_swap_splits),
    Fault('validation not in test mode', COCO, {f'{VAL}.dataset.test_mode': False}, f'{VAL}.dataset.test_mode', 'Images would be left out', 'write test_mode=True', level='warning'),
    Fault('training in test mode', COCO, {f'{LOADER}.dataset.test_mode': True}, f'{LOADER}.dataset.test_mode', 'got True', 'write test_mode=False', level='warning'),
    Fault('chance in validation', COCO, {}, f'{VAL}.dataset.pipeline', 'sees each image as it is', 'a pipeline of its own', level='warning', also=_insert(VAL, 2, dict(type='RandomFlip', prob=0.5))),
    Fault('no label images in validation', SEG, {}, f'{VAL}.dataset.pipeline', 'IoUMetric', "'LoadAnnotations'", also=_drop(VAL, 1)),
    Fault('label images resized in validation', SEG, {}, f'{VAL}.dataset.pipeline', 'of their own size', 'load the labels after it', also=_insert(VAL, 2, dict(type='Resize', scale=(80, 80)))),
    Fault('cropped before labels are loaded', SEG, {}, f'{LOADER}.dataset.pipeline', 'RandomCrop before LoadAnnotations', 'load them first', also=_insert(LOADER, 1, dict(type='RandomCrop', crop_size=(32, 32)))),
    Fault('flipped before boxes are loaded', COCO, {}, f'{LOADER}.dataset.pipeline', 'RandomFlip before LoadAnnotations', 'load them first', also=_swap_steps),
    Fault('images without id in validation', DET, {f'{VAL}.dataset.pipeline.3.meta_keys': ('img_path', 'ori_shape', 'img_shape', 'scale_factor')}, f'{VAL}.dataset.pipeline.3.meta_keys', "['img_id']", 'Add them'),
    Fault('a crop of another size than the batch', 'configs/segmentation/kd_fcn-r50_mbv3s-aspp_40k_voc12-512x512.py', {f'{MODEL}.data_preprocessor.size': (256, 256)}, f'{MODEL}.data_preprocessor.size', '(256, 256)', 'Give both the same', level='warning'),
    Fault('a folder as annotation file', DET, {f'{LOADER}.dataset.ann_file': 'annotations'}, f'{LOADER}.dataset.ann_file', 'is a folder', 'Name the JSON file'),
    Fault('data_prefix as a text', DET, {f'{LOADER}.dataset.data_prefix': 'train/images/'}, f'{LOADER}.dataset.data_prefix', 'Expected a dict', "dict(img='train/images/')"),
    Fault('metainfo as a tuple', DET, {f'{LOADER}.dataset.metainfo': ('zero', 'one')}, f'{LOADER}.dataset.metainfo', 'Expected a dict', 'metainfo=dict('),
    Fault('a data set without pipeline', DET, {f'{LOADER}.dataset.pipeline': DROP}, f'{LOADER}.dataset.pipeline', 'a list of transforms', 'pipeline=train_pipeline'),
    Fault('a transform as a text', DET, {f'{LOADER}.dataset.pipeline.1': 'LoadAnnotations'}, f'{LOADER}.dataset.pipeline.1', 'a dict with a type', "dict(type='LoadAnnotations')"),
    Fault('no annotation file', DET, {f'{LOADER}.dataset.ann_file': DROP}, f'{LOADER}.dataset.ann_file', 'an annotation file', 'Write ann_file='),
    Fault('a metric without type', DET, {'val_evaluator.type': DROP}, 'val_evaluator', 'Expected a type', "dict(type='CocoMetric'"),
    Fault('a scheduler without type', DET, {'param_scheduler': [dict(begin=0, end=12)]}, 'param_scheduler.0', 'Expected a type', "dict(type='MultiStepLR'"),
    Fault('wrong suffix of label images', SEG, {f'{LOADER}.dataset.seg_map_suffix': '.jpg'}, f'{LOADER}.dataset.seg_map_suffix', "'.jpg'", 'Correct seg_map_suffix'),
    Fault('misspelt key of filter_cfg', DET, {f'{LOADER}.dataset.filter_cfg': dict(filter_empty=True)}, f'{LOADER}.dataset.filter_cfg.filter_empty', 'which is not read', "Did you mean 'filter_empty_gt'"),
    Fault('Pretrained without a file', DET, {f'{MODEL}.backbone.init_cfg': dict(type='Pretrained')}, f'{MODEL}.backbone.init_cfg', 'Expected a checkpoint', 'Give the file'),
    Fault('misspelt address of weights', DET, {f'{MODEL}.backbone.init_cfg': dict(type='Pretrained', checkpoint='torchvison://resnet18')}, f'{MODEL}.backbone.init_cfg', 'torchvison', "Did you mean 'torchvision://'"),
    Fault('init_cfg as a text', DET, {f'{MODEL}.backbone.init_cfg': 'torchvision://resnet18'}, f'{MODEL}.backbone.init_cfg', 'Expected a dict', "dict(type='Pretrained'"),
    Fault('load_from is a folder', DET, {'load_from': 'work_dirs/teacher_digits'}, 'load_from', 'It is a folder', 'Correct init_cfg or load_from'),
    Fault('pretrained and init_cfg', DET, {f'{MODEL}.backbone.init_cfg': dict(type='Kaiming', layer='Conv2d'), f'{MODEL}.backbone.pretrained': 'student_weights.pth'}, MODEL, 'cannot be specified at the same time', '', full=True),
    Fault('misspelt kind of NMS', DET, {f'{MODEL}.test_cfg.nms.type': 'nmss'}, f'{MODEL}.test_cfg.nms.type', "'nmss'", "Did you mean 'nms'"),
    Fault('misspelt assigner', DET, {f'{MODEL}.train_cfg.assigner.type': 'ATSSAsigner'}, f'{MODEL}.train_cfg.assigner.type', "'ATSSAsigner'", "'ATSSAssigner'"),
    Fault('classes of an auxiliary head', SEG, {f'{MODEL}.auxiliary_head': dict(type='FCNHead', in_channels=16, in_index=1, channels=8, num_classes=19)}, f'{MODEL}.auxiliary_head', 'the 11 classes', 'Set num_classes'),
    Fault('a sliding window without its size', SEG, {f'{MODEL}.test_cfg': dict(mode='slide')}, VAL, 'stride', '', full=True),
    Fault('a filter that leaves nothing', DET, {f'{LOADER}.dataset.filter_cfg': dict(filter_empty_gt=True, min_size=3200)}, LOADER, 'one found none', 'what filter_cfg leaves', full=True),
)  # fmt: skip

LEARNING = (
    Fault('the teacher as a path', DET, {'model.teacher': 'gfl_teacher.pth'}, 'model', 'teacher to be a dict', 'teacher=dict(cfg='),
    Fault('the teacher as a bare model', DET, {}, 'model.teacher', 'a model config', 'teacher=dict(model=', also=_bare_teacher),
    Fault('a model where the config of the teacher belongs', DET, {}, 'model.teacher', 'the path of a config file', 'Write model=', also=_teacher_of_a_model),
    Fault('a folder as checkpoint of the teacher', DET, {'model.teacher.checkpoint': 'work_dirs/teacher_digits'}, 'model.teacher.checkpoint', 'It is a folder', 'Check the path'),
    Fault('the student as a teacher is written', DET, {MODEL: dict(cfg='gfl_student.py')}, 'model', 'with a type, as student', 'student=_base_.model'),
    Fault('a loss as a text', DET, {f'{PAIRS}.neck.loss': 'kdplugin.PKDLoss'}, f'{PAIRS}.neck.loss', 'one loss as a dict', "loss=dict(type='kdplugin.PKDLoss')"),
    Fault('a list of losses', DET, {f'{PAIRS}.neck.loss': [dict(type='kdplugin.PKDLoss')]}, f'{PAIRS}.neck.loss', 'one loss as a dict', 'Write loss=dict'),
    Fault('a list of taps', DET, {f'{PAIRS}.neck.tap': ['neck', 'backbone']}, f'{PAIRS}.neck.tap', 'one module path', 'a pair for each path'),
    Fault('a method without prefix', DET, {f'{PAIRS}.neck': dict(type='MGD', tap='neck')}, f'{PAIRS}.neck', "'MGD'", "Did you mean 'kdplugin.MGD'"),
    Fault("MMRazor's loss", DET, {f'{PAIRS}.neck.loss': dict(type='mmrazor.ChannelWiseDivergence', tau=1)}, f'{PAIRS}.neck.loss.type', 'ChannelWiseDivergence', 'migrate_mmrazor.py'),
    Fault("MMRazor's loss weight", DET, {f'{PAIRS}.neck.loss_weight': 2.0}, f'{PAIRS}.neck', "'loss_weight'", "Did you mean 'weight'"),
    Fault('a phase that ends before it begins', DET, {f'{PAIRS}.neck.weight': dict(kind='linear', start=1.0, stop=0.0, begin=500, end=100)}, f'{PAIRS}.neck', 'to end after its begin', 'Correct begin or end'),
    Fault('a pair that stops at once', DET, {f'{PAIRS}.neck.stop_after': 0}, f'{PAIRS}.neck.stop_after', 'stop_after=0', 'leave it out'),
    Fault('a stop that is meant in epochs', DET, {f'{PAIRS}.neck.stop_after': 8}, f'{PAIRS}.neck.stop_after', 'before the first epoch', 'by_epoch=True', level='warning'),
    Fault('a warm-up that is meant in epochs', DET, {f'{PAIRS}.neck.warmup': 1}, f'{PAIRS}.neck.warmup', 'before the first epoch', 'by_epoch=True', level='warning'),
    Fault('all weights 0', DET, {f'{PAIRS}.neck.weight': 0, f'{PAIRS}.cls.weight': 0}, 'model.pairs', 'without its teacher', 'raise one', level='warning'),
    Fault('alpha 0', DET, {'model.alpha': 0.0}, 'model.alpha', 'without its teacher', 'raise one', level='warning'),
    Fault('alpha 1', DET, {'model.alpha': 1.0}, 'model.alpha', 'The labels teach nothing', 'lower alpha', level='warning'),
    Fault('alpha in percent', DET, {'model.alpha': 70}, 'model', 'from 0 to 1 in alpha but got 70', 'Give a number'),
    Fault('a target ratio in percent', DET, {f'{PAIRS}.neck.weight': DROP, f'{PAIRS}.neck.target_ratio': 50}, f'{PAIRS}.neck.target_ratio', 'got 50', 'Write 0.5', level='warning'),
    Fault('a pair twice', DET, {}, f'{PAIRS}.again', "of 'neck' once more", 'remove one', level='warning', also=_pair_twice),
    Fault('temperature 0', DET, {f'{PAIRS}.cls.loss.temperature': 0}, f'{PAIRS}.cls', 'temperature > 0', 'Try 1 to 8'),
    Fault('a tap with an index', DET, {f'{PAIRS}.neck.tap': 'neck[0]'}, f'{PAIRS}.neck.tap', "'neck[0]'", "Did you mean 'neck'", full=True),
    Fault('frozen with the name of the student before it', DET, {'model.frozen': ['student.backbone']}, 'model.frozen', "'student.backbone'", "Did you mean 'backbone'", full=True),
    Fault('KL on features', DET, {f'{PAIRS}.neck.loss': dict(type='kdplugin.KLDivergenceLoss')}, f'{PAIRS}.neck', 'to predict the same classes', 'distil features instead', full=True),
    Fault('a cache over random images', DET, {'model.teacher.cache': dict(dir='work_dirs/cache', max_bytes='1GB')}, 'model.teacher', 'the same image each time', 'remove teacher.cache', full=True, also=_insert(LOADER, 3, dict(type='RandomFlip', prob=0.5))),
    Fault('frozen with nothing in it', DET, {'model.frozen': [None]}, 'model', 'a list of patterns', "frozen=['backbone']"),
    Fault('adapters that do not learn', DET, {f'{OPTIM}.paramwise_cfg': dict(custom_keys={'_kd': dict(lr_mult=0.0)})}, f'{OPTIM}.paramwise_cfg.custom_keys._kd', 'random projections', 'leave it out', level='warning', full=True),
    Fault("the teacher's own work dir", SEG, {'work_dir': 'work_dirs/teacher_digits'}, 'work_dir', 'holds the teacher', 'choose another one'),
    Fault('a source of weights that is missing', DET, {'custom_hooks': [dict(type='kdplugin.WeightProjectionHook', source='work_dirs/gone.pth')]}, 'custom_hooks.0.source', 'does not exist', 'Correct source'),
    Fault('projection beside load_from, before anything is built', DET, {'load_from': 'student_weights.pth', 'custom_hooks': [dict(type='kdplugin.WeightProjectionHook', source='gfl_teacher.pth', target='')]}, 'custom_hooks', 'either WeightProjectionHook or load_from', 'Remove one of them'),
)  # fmt: skip

RUNNING = (
    Fault('the decay of another EMA', SEG, {'custom_hooks': [dict(type='EMAHook', momentum=0.9998)]}, 'custom_hooks.0.momentum', 'got 0.9998', 'write 0.0002', level='warning'),
    Fault('an EMA that adds too much', SEG, {'custom_hooks': [dict(type='EMAHook', momentum=2)]}, 'custom_hooks.0.momentum', 'between 0 and 1', 'Give for example 0.0002'),
    Fault('misspelt kind of EMA', SEG, {'custom_hooks': [dict(type='EMAHook', ema_type='ExpMomentumEM')]}, 'custom_hooks.0.ema_type', "'ExpMomentumEM'", "ExpMomentumEMA'"),
    Fault('decay of an EMA', SEG, {'custom_hooks': [dict(type='EMAHook', decay=0.999)]}, 'custom_hooks.0.decay', "'decay'", 'Write momentum'),
    Fault('an EMA with two beginnings', DET, {'custom_hooks': [dict(type='EMAHook', begin_iter=5, begin_epoch=2)]}, 'custom_hooks.0', 'should not be both set', '', full=True),
    Fault('hooks as texts', DET, {'custom_hooks': ['EMAHook']}, 'custom_hooks.0', "'EMAHook'", "Write dict(type='EMAHook')"),
    Fault('a hook without type', DET, {'custom_hooks': [dict(momentum=0.1)]}, 'custom_hooks.0', 'Expected a type', 'Write dict(type='),
    Fault('an unknown priority', DET, {'custom_hooks': [dict(type='EMAHook', priority='VERYHIGH')]}, 'custom_hooks.0.priority', "'VERYHIGH'", "Did you mean 'VERY_HIGH'"),
    Fault('a rule that is none', DET, {'default_hooks.checkpoint.save_best': 'auto', 'default_hooks.checkpoint.rule': 'bigger'}, 'default_hooks.checkpoint', 'bigger', '', full=True),
    Fault('Apex that is not installed', DET, {f'{OPTIM}.type': 'ApexOptimWrapper'}, f'{OPTIM}.type', 'the package apex', "type='AmpOptimWrapper'"),
    Fault('gradients cut to nothing', DET, {f'{OPTIM}.clip_grad': dict(max_norm=0)}, f'{OPTIM}.clip_grad.max_norm', 'got 0', '35 is usual'),
    Fault('one beta', DET, {f'{OPTIM}.optimizer': dict(type='AdamW', lr=1e-4, betas=0.9)}, f'{OPTIM}.optimizer.betas', 'two numbers', 'betas=(0.9, 0.999)'),
    Fault('momentum for AdamW', DET, {f'{OPTIM}.optimizer': dict(type='AdamW', lr=1e-4, momentum=0.9)}, f'{OPTIM}.optimizer.momentum', "'momentum'", 'Remove it'),
    Fault('a path to resume', DET, {'resume': 'work_dirs/x/latest.pth'}, 'resume', 'which is not read as a path', 'load_from=PATH'),
    Fault('a scheduler that ends before it begins', DET, {'param_scheduler.1.begin': 8, 'param_scheduler.1.end': 4}, 'param_scheduler.1.end', 'an end after begin=8', 'correct one'),
    Fault('a warm-up of iterations in epochs', DET, {}, 'param_scheduler.0.by_epoch', 'end=500 in epochs', 'write by_epoch=False', also=_forget_by_epoch),
    Fault('a cosine that rises again', DET, {'param_scheduler.1': dict(type='CosineAnnealingLR', T_max=6, by_epoch=True)}, 'param_scheduler.1.T_max', 'rises again', 'set it to 12', level='warning'),
    Fault('a cosine that does not come down', DET, {'param_scheduler.1': dict(type='CosineAnnealingLR', T_max=100, by_epoch=True)}, 'param_scheduler.1.T_max', 'does not come down', 'set it to 12', level='warning'),
    Fault('a rate that grows', DET, {'param_scheduler.1.gamma': 10}, 'param_scheduler.1.gamma', 'would grow', 'write 0.1', level='warning'),
    Fault('one milestone', DET, {'param_scheduler.1.milestones': 8}, 'param_scheduler.1.milestones', 'Expected a list', 'milestones=[8]'),
    Fault('a cycle that is over before the training', SEG, {'param_scheduler.0.total_steps': 300}, 'param_scheduler.0.total_steps', 'at least 700', 'raise it'),
    Fault('a cycle longer than the training', SEG, {'param_scheduler.0.total_steps': 3000}, 'param_scheduler.0.total_steps', 'got 3000', 'lower it', level='warning'),
    Fault('a least rate above the first', DET, {'param_scheduler.1': dict(type='CosineAnnealingLR', T_max=12, eta_min=0.1, by_epoch=True)}, 'param_scheduler.1.eta_min', 'below the rate of 0.01', 'lower it', level='warning'),
    Fault('a log of epochs in a run of iterations', SEG, {'log_processor.by_epoch': True}, 'log_processor.by_epoch', 'as train_cfg counts them', 'Write by_epoch=False', level='warning'),
    Fault('a loop by type and by_epoch', DET, {'train_cfg.by_epoch': True}, 'train_cfg.by_epoch', 'either type or by_epoch', 'remove by_epoch'),
    Fault('the metric of the other project for boxes', DET, {'val_evaluator': dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])}, 'val_evaluator.type', 'the labels of CocoDataset', "'CocoMetric'"),
    Fault('the metric of the other project for pixels', SEG, {'val_evaluator': dict(type='mmdet.CocoMetric', metric='bbox')}, 'val_evaluator.type', 'the labels of', "'IoUMetric'"),
    Fault('masks measured that nobody predicts', COCO, {'val_evaluator.metric': ['bbox', 'segm']}, 'val_evaluator.metric', 'without a mask head', "leave 'segm' out"),
    Fault('misspelt launcher', DET, {'launcher': 'slrum'}, 'launcher', "'slrum'", "Did you mean 'slurm'"),
    Fault('misspelt back end', DET, {'env_cfg.dist_cfg': dict(backend='ncll')}, 'env_cfg.dist_cfg.backend', "'ncll'", "Did you mean 'nccl'"),
    Fault('an unknown SyncBN', DET, {'sync_bn': 'pytorch'}, 'sync_bn', "'pytorch'", 'Choose one'),
    Fault('misspelt key of auto_scale_lr', DET, {'auto_scale_lr': dict(enabled=True, base_batch_size=16)}, 'auto_scale_lr.enabled', "'enabled'", "Did you mean 'enable'"),
    Fault('misspelt seed', DET, {'randomness': dict(sed=1)}, 'randomness.sed', "'sed'", "Did you mean 'seed'"),
    Fault('misspelt key of env_cfg', DET, {'env_cfg': dict(cudnn_benchmrk=True)}, 'env_cfg.cudnn_benchmrk', "'cudnn_benchmrk'", "Did you mean 'cudnn_benchmark'"),
    Fault('custom_imports without imports', DET, {'custom_imports': dict(modules=['x'])}, 'custom_imports', 'Expected imports|Expected keys', 'Write imports|Correct the name'),
    Fault('an import that may fail and does', DET, {'custom_imports': dict(imports=['gone_package'], allow_failed_imports=True)}, 'custom_imports.imports', "'gone_package'", 'PYTHONPATH', level='warning'),
    Fault('a strategy that nobody reads', DET, {'strategy': dict(type='FSDPStrategy')}, 'runner_type', 'leave the strategy out', "runner_type='FlexibleRunner'"),
    Fault('an unknown Runner', DET, {'runner_type': 'FlexibleRuner'}, 'runner_type', "'FlexibleRuner'", "Did you mean 'FlexibleRunner'"),
    Fault('a back end that is not installed', DET, {'visualizer': dict(type='DetLocalVisualizer', vis_backends=[dict(type='WandbVisBackend')])}, 'visualizer.vis_backends.0', 'the package wandb', 'pip install wandb'),
    Fault('misspelt visualizer', DET, {'visualizer': dict(type='DetLocalVisualiser')}, 'visualizer.type', "'DetLocalVisualiser'", "'DetLocalVisualizer'"),
)  # fmt: skip

VIDEO = (
    Fault('the folder of a video teacher is missing', WAN, {'model.teacher.path': 'weights/wan22'}, 'model.teacher.path', 'does not exist', 'hf download'),
    Fault('a folder that is no video teacher', WAN, {'model.teacher.path': 'data'}, 'model.teacher.path', 'transformer/ or high_noise_model/', 'Give the folder of a Wan pipeline'),
    Fault('heads that do not divide the width', WAN, {'model.student.num_heads': 5}, 'model.student', 'divide hidden_size', 'Choose for example'),
    Fault('a student of another text', WAN, {'model.student.text_dim': 64}, 'model.student', 'of the latents and text of its teacher', 'Correct it'),
    Fault('a tap behind the last block', WAN, {'model.pairs.last.student_tap': 'blocks.2'}, 'model.pairs.last.student_tap', "'blocks.2'", 'Did you mean'),
    Fault('latents of an odd size', WAN, {'model.flow.size': (9, 9)}, 'model.flow', 'both even', '512 x 512'),
    Fault('images where prompts belong', WAN, {f'{LOADER}.dataset': dict(type='mmdet.CocoDataset')}, f'{LOADER}.dataset.type', 'Expected prompts', 'kdplugin.PromptDataset'),
    Fault('a file of prompts that is missing', WAN, {f'{LOADER}.dataset.prompts': 'gone.txt'}, f'{LOADER}.dataset', 'gone.txt', 'Write one on each line'),
)  # fmt: skip
