# ruff: noqa: E501 - a table: one fault in a line
"""Faults in settings that nobody complains of: variables that are not read, keys that are handed on, values that end it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config, ConfigDict

from kdplugin import launch
from preflight_cases.faults import COCO, DET, SEG, Fault

LOADER, VAL, MODEL = 'train_dataloader', 'val_dataloader', 'model.student'
OPTIM, TEST = 'optim_wrapper', 'model.student.test_cfg'
PSP = 'configs/segmentation/cwd_pspnet-r101_pspnet-r18_80k_cityscapes-512x1024.py'
MASK = 'configs/detection/mask-kd_mask-rcnn-r101_mask-rcnn-r50_2x_coco.py'
MIT = 'configs/projection/projected_mit_digits.py'
PIPELINE = "[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]"


def _child(base: str, text: str) -> Callable[[Config], None]:
    """Return a change that makes another config of one: a file that inherits it and sets something."""

    def run(config: Config) -> None:
        file = Path('child_of_fault.py')
        file.write_text(f"_base_ = ['./{base}']\n{text}\n")
        child = launch.read_config(file)
        for name in ('_cfg_dict', '_filename', '_text'):
            object.__setattr__(config, name, getattr(child, name))

    return run


def _loss(config: Config) -> None:
    head = config.model.student.decode_head
    head.loss_decode = [head.loss_decode, ConfigDict(type='DiceLoss', loss_name='dice')]


SETTINGS = (
    Fault('a pipeline that nobody reads', COCO, {}, 'train_pipeline', 'a variable that nobody reads', 'pipeline=train_pipeline', level='warning', also=_child(COCO, f'train_pipeline = {PIPELINE}')),
    Fault('a data_root that nobody reads', COCO, {}, 'data_root', 'a variable that nobody reads', 'data_root=data_root', level='warning', also=_child(COCO, "data_root = 'data/my_coco/'")),
    Fault('metainfo that nobody reads', COCO, {}, 'metainfo', 'which nobody reads', 'metainfo=metainfo', level='warning', also=_child(COCO, "metainfo = dict(classes=('cat', 'dog'))")),
    Fault('a crop_size that nobody reads', PSP, {}, 'crop_size', 'a variable that nobody reads', 'size=crop_size', level='warning', also=_child(PSP, 'crop_size = (256, 256)')),
    Fault('a norm_cfg that nobody reads', PSP, {}, 'norm_cfg', 'a variable that nobody reads', 'norm_cfg=norm_cfg', level='warning', also=_child(PSP, "norm_cfg = dict(type='BN')")),
    Fault('max_epochs that nobody reads', DET, {}, 'max_epochs', 'which nobody reads', 'train_cfg=dict(max_epochs', level='warning', also=_child(DET, 'max_epochs = 24')),
    Fault('a batch_size that nobody reads', DET, {}, 'batch_size', 'which nobody reads', 'train_dataloader=dict(batch_size', level='warning', also=_child(DET, 'batch_size = 4')),
    Fault('a rate that nobody reads', DET, {}, 'lr', 'which nobody reads', 'optimizer=dict(lr', level='warning', also=_child(DET, 'lr = 0.005')),
    Fault('num_classes that nobody reads', DET, {}, 'num_classes', 'which nobody reads', 'num_classes=num_classes', level='warning', also=_child(DET, 'num_classes = 5')),
    Fault('a student outside the model', DET, {}, 'student', 'inside model', 'model=dict(student=...)', also=_child(DET, 'student = dict(backbone=dict(depth=34))')),
    Fault('a teacher outside the model', DET, {}, 'teacher', 'inside model', 'model=dict(teacher=...)', also=_child(DET, "teacher = dict(checkpoint='other.pth')")),
    Fault('pairs outside the model', DET, {}, 'pairs', 'inside model', 'model=dict(pairs=...)', also=_child(DET, 'pairs = dict()')),
    Fault('a projection that a list of hooks removes', MIT, {}, 'custom_hooks', 'WeightProjectionHook', '*_base_.custom_hooks', level='warning', also=_child(MIT, "custom_hooks = [dict(type='EMAHook', momentum=0.01)]")),
    Fault('the name of a loss without the word', SEG, {f'{MODEL}.decode_head.loss_decode.loss_name': 'ce'}, f'{MODEL}.decode_head.loss_decode.loss_name', "begins with 'loss_'", "loss_name='loss_ce'"),
    Fault('the name of a second loss without the word', SEG, {}, f'{MODEL}.decode_head.loss_decode.1.loss_name', "begins with 'loss_'", "loss_name='loss_dice'", also=_loss),
    Fault('values clipped by max_norm', DET, {f'{OPTIM}.clip_grad': dict(type='value', max_norm=1.0)}, f'{OPTIM}.clip_grad.max_norm', "got 'max_norm'", "'clip_value'"),
    Fault('misspelt norm_type', DET, {f'{OPTIM}.clip_grad': dict(max_norm=35, norm_typ=2)}, f'{OPTIM}.clip_grad.norm_typ', "got 'norm_typ'", "'norm_type'"),
    Fault('a clip_grad of no known type', DET, {f'{OPTIM}.clip_grad': dict(type='l2', max_norm=35)}, f'{OPTIM}.clip_grad.type', "got 'l2'", 'Choose one'),
    Fault('misspelt norm_decay_mult', DET, {f'{OPTIM}.paramwise_cfg': dict(norm_decay_multi=0.0)}, f'{OPTIM}.paramwise_cfg.norm_decay_multi', 'does not read', "'norm_decay_mult'"),
    Fault('misspelt lr_mult', DET, {f'{OPTIM}.paramwise_cfg': dict(custom_keys=dict(backbone=dict(lr_mutl=0.1)))}, f'{OPTIM}.paramwise_cfg.custom_keys.backbone.lr_mutl', 'is not read', "'lr_mult'"),
    Fault('a rate for lr_mult', DET, {f'{OPTIM}.paramwise_cfg': dict(custom_keys=dict(backbone=dict(lr=0.001)))}, f'{OPTIM}.paramwise_cfg.custom_keys.backbone.lr', 'is not read', 'lr_mult=0.1'),
    Fault('layer decay without its constructor', DET, {f'{OPTIM}.paramwise_cfg': dict(layer_decay_rate=0.7, num_layers=12)}, f'{OPTIM}.paramwise_cfg.layer_decay_rate', 'does not read', 'Add constructor='),
    Fault('max_per_image', DET, {TEST: dict(nms_pre=100, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_image=20)}, f'{TEST}.max_per_image', 'which is not read', "'max_per_img'"),
    Fault('a score_thr above 1', DET, {f'{TEST}.score_thr': 5}, f'{TEST}.score_thr', 'from 0 to 1', '0.05'),
    Fault('score_threshold', DET, {TEST: dict(nms_pre=100, score_threshold=0.5, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20)}, f'{TEST}.score_threshold', 'which is not read', "'score_thr'"),
    Fault('overlap in percent', DET, {f'{TEST}.nms.iou_threshold': 60}, f'{TEST}.nms.iou_threshold', 'from 0 to 1', 'write 0.6'),
    Fault('no boxes in an image', DET, {f'{TEST}.max_per_img': 0}, f'{TEST}.max_per_img', '> 0', 'max_per_img='),
    Fault('no proposals before suppression', MASK, {f'{MODEL}.train_cfg.rpn_proposal.nms_pre': 0}, f'{MODEL}.train_cfg.rpn_proposal.nms_pre', '> 0', 'nms_pre='),
    Fault('a sampler of no boxes', MASK, {f'{MODEL}.train_cfg.rcnn.sampler.num': 0}, f'{MODEL}.train_cfg.rcnn.sampler.num', '> 0', '512'),
    Fault('positives below negatives', MASK, {f'{MODEL}.train_cfg.rpn.assigner.pos_iou_thr': 0.2}, f'{MODEL}.train_cfg.rpn.assigner.pos_iou_thr', 'at least neg_iou_thr', 'Swap', level='warning'),
    Fault('a loss of weight 0', DET, {f'{MODEL}.bbox_head.loss_cls.loss_weight': 0.0}, f'{MODEL}.bbox_head.loss_cls.loss_weight', 'not trained', 'give a weight', level='warning'),
    Fault('a loss of negative weight', DET, {f'{MODEL}.bbox_head.loss_bbox.loss_weight': -2.0}, f'{MODEL}.bbox_head.loss_bbox.loss_weight', 'pushes away', 'Write 2.0'),
    Fault('no class has a weight', SEG, {f'{MODEL}.decode_head.loss_decode.class_weight': [0.0] * 11}, f'{MODEL}.decode_head.loss_decode.class_weight', 'zeros', 'class_weight=None'),
    Fault('everything is dropped', SEG, {f'{MODEL}.decode_head.dropout_ratio': 1.0}, f'{MODEL}.decode_head.dropout_ratio', 'All features', '0.1'),
    Fault('anchors that nothing is assigned to', DET, {f'{MODEL}.train_cfg.assigner.topk': 0}, f'{MODEL}.train_cfg.assigner.topk', 'No anchor', 'write 9'),
    Fault('a switch to a pipeline that does not pack', DET, {'custom_hooks': [dict(type='PipelineSwitchHook', switch_epoch=8, switch_pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)])]}, 'custom_hooks.0.switch_pipeline', 'transform that packs', "type='PackDetInputs'"),
    Fault('a switch to a pipeline without labels', DET, {'custom_hooks': [dict(type='PipelineSwitchHook', switch_epoch=8, switch_pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')])]}, 'custom_hooks.0.switch_pipeline', 'loads none', 'LoadAnnotations'),
    Fault('a part that is not recomputed', DET, {'activation_checkpointing': 'backbon'}, 'activation_checkpointing', "got 'backbon'", "'backbone'"),
    Fault('a part that is not fused', DET, {'efficient_conv_bn_eval': ['backbon']}, 'efficient_conv_bn_eval', "got 'backbon'", "'backbone'"),
    Fault('a compiler that torch has not', DET, {'compile': dict(backend='inducter')}, 'compile.backend', "got 'inducter'", "'inductor'"),
    Fault('weights of a backbone for a teacher', COCO, {'model.teacher.checkpoint': 'torchvision://resnet101'}, 'model.teacher.checkpoint', 'whole model of the teacher', 'Name the file of the whole model'),
    Fault('weights of a backbone for a student', COCO, {'load_from': 'torchvision://resnet50'}, 'load_from', 'whole model of the student', 'into its init_cfg'),
    Fault('a file as folder of the cache', DET, {'model.teacher.cache': dict(dir='gfl_kd.py', max_bytes='1GB')}, 'model.teacher.cache.dir', 'a folder', 'Choose another dir'),
    Fault('a cache of 20 bytes', DET, {'model.teacher.cache': dict(dir='cache', max_bytes=20)}, 'model.teacher.cache.max_bytes', '20 bytes', "'20GB'", level='warning'),
    Fault('sides swapped for the teacher', COCO, {'model.teacher.input_size': (1333, 800)}, 'model.teacher.input_size', '(height, width)', '(800, 1333)', level='warning'),
    Fault('images of 8 pixels for the teacher', DET, {'model.teacher.input_size': (8, 8)}, 'model.teacher.input_size', 'Nothing is left', 'correct input_size', level='warning'),
    Fault('images of a hundredth for the teacher', DET, {'model.teacher.scale': 0.01}, 'model.teacher.scale', 'a factor', 'correct scale', level='warning'),
    Fault('validation drops images', DET, {f'{VAL}.drop_last': True}, f'{VAL}.drop_last', 'count as misses', 'drop_last=False', level='warning'),
    Fault('no sampler', DET, {f'{LOADER}.sampler': None}, f'{LOADER}.sampler', 'got None', "type='DefaultSampler'"),
    Fault('epochs in the same order', DET, {'default_hooks.sampler_seed': None}, 'default_hooks.sampler_seed', 'same order', 'DistSamplerSeedHook', level='warning'),
    Fault('misspelt classes', COCO, {f'{LOADER}.dataset.metainfo': dict(clases=('person',))}, f'{LOADER}.dataset.metainfo.clases', 'not read', "'classes'"),
    Fault('class_names', COCO, {f'{VAL}.dataset.metainfo': dict(class_names=('person',))}, f'{VAL}.dataset.metainfo.class_names', 'not read', "'classes'"),
    Fault('a folder of images under another key', DET, {f'{LOADER}.dataset.data_prefix': dict(img_path='train/images/')}, f'{LOADER}.dataset.data_prefix.img_path', 'not read', "img='train/images/'"),
    Fault('a folder of label images under another key', SEG, {f'{LOADER}.dataset.data_prefix': dict(img='train/images', seg_map_path='train/masks')}, f'{LOADER}.dataset.data_prefix.img', 'not read', "img_path='train/images'"),
    Fault('a misspelt storage', COCO, {f'{LOADER}.dataset.backend_args': dict(backend='loacl')}, f'{LOADER}.dataset.backend_args.backend', 'a storage of', "'local'"),
    Fault('a storage without its package', COCO, {f'{LOADER}.dataset.backend_args': dict(backend='petrel')}, f'{LOADER}.dataset.backend_args.backend', 'petrel_client', 'Install it'),
    Fault('proposals that are not there', COCO, {f'{LOADER}.dataset.proposal_file': 'proposals/gone.pkl'}, f'{LOADER}.dataset.proposal_file', 'does not exist', 'correct proposal_file'),
    Fault('padding trained as a class', PSP, {f'{MODEL}.data_preprocessor.seg_pad_val': 0}, f'{MODEL}.data_preprocessor.seg_pad_val', 'trained as class 0', 'seg_pad_val=255', level='warning'),
    Fault('Mosaic that is not switched off', DET, {f'{LOADER}.dataset.pipeline.1': dict(type='Mosaic'), 'custom_hooks': [dict(type='YOLOXModeSwitchHook', num_last_epochs=5, skip_type_keys=('Mosiac',))]}, 'custom_hooks.0.skip_type_keys', 'stay on', "'Mosaic'"),
    Fault('a coverage in percent', MIT, {'custom_hooks.0.min_coverage': 90}, 'custom_hooks.0.min_coverage', 'from 0 to 1', 'min_coverage=0.9'),
    Fault('a method in capitals', MIT, {'custom_hooks.0.method': 'SVD'}, 'custom_hooks.0.method', "got 'SVD'", 'Choose one'),
    Fault('layers that are no way to choose', MIT, {'custom_hooks.0.layers': 'evenly'}, 'custom_hooks.0.layers', "got 'evenly'", 'Choose one'),
    Fault('a plan that is not there', MIT, {'custom_hooks.0.plan': 'gone.json'}, 'custom_hooks.0.plan', 'does not exist', 'Correct plan'),
    Fault('a part of the student beside it', DET, {}, 'model', "['backbone']", 'student=dict(backbone=...)', also=_child(DET, 'model = dict(backbone=dict(depth=34))')),
    Fault('a dataset wrapped without _delete_', DET, {f'{LOADER}.dataset': dict(type='RepeatDataset', times=2, data_root='data', dataset=dict(type='CocoDataset'))}, f'{LOADER}.dataset.data_root', 'left over', '_delete_=True'),
    Fault('a loop of iterations over one of epochs', DET, {}, 'train_cfg.max_epochs', 'left over', '_delete_=True', also=_child(DET, "train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=100)")),
    Fault('fewer images than a batch, which is dropped', DET, {f'{LOADER}.drop_last': True, f'{LOADER}.batch_size': 16}, f'{LOADER}.drop_last', 'no step is taken', 'drop_last=False'),
    Fault('a layer that is not recomputed', DET, {'activation_checkpointing': ['backbone.layer5']}, 'activation_checkpointing', 'backbone.layer5', "'backbone.layer", full=True),
)  # fmt: skip
