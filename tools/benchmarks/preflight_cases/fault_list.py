# ruff: noqa: E501 - a table: one fault in a line
"""The kinds of fault in keys, types, files, classes and data."""

from __future__ import annotations

from collections.abc import Callable

from mmengine.config import Config, ConfigDict

from preflight_cases.faults import COCO, DET, DROP, SEG, Fault, rename

LOADER, MODEL = 'train_dataloader', 'model.student'
PIPE = f'{LOADER}.dataset.pipeline'


def _insert(path_end: int, step: dict) -> Callable[[Config], None]:
    def run(config: Config) -> None:
        config.train_dataloader.dataset.pipeline.insert(path_end, ConfigDict(step))

    return run


def _drop_step(number: int) -> Callable[[Config], None]:
    def run(config: Config) -> None:
        del config.train_dataloader.dataset.pipeline[number]

    return run


def _leftover(config: Config) -> None:
    config.model.update(backbone=config.model.student.backbone, neck=config.model.student.neck)


def _razor(config: Config) -> None:
    config.model = ConfigDict(
        type='mmrazor.SingleTeacherDistill', architecture=config.model.student, teacher=config.model.teacher,
        distiller=dict(type='ConfigurableDistiller', distill_losses=dict(), student_recorders=dict()),
    )  # fmt: skip


def _swap_classes(config: Config) -> None:
    names = list(config.val_dataloader.dataset.metainfo.classes)
    config.val_dataloader.dataset.metainfo.classes = (names[1], names[0], *names[2:])


def _text_class(config: Config) -> None:
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.metainfo = ConfigDict(classes='zero')


KEYS = (
    Fault('unknown key in a backbone', DET, {f'{MODEL}.backbone.dept': 18}, f'{MODEL}.backbone.dept', "'dept'", "Did you mean 'depth'"),
    Fault('unknown key deep in a head', DET, {f'{MODEL}.bbox_head.loss_cls.bta': 2.0}, f'{MODEL}.bbox_head.loss_cls.bta', "'bta'", "Did you mean 'beta'"),
    Fault('unknown key of a parent class', SEG, {f'{MODEL}.decode_head.num_clases': 11}, f'{MODEL}.decode_head.num_clases', "'num_clases'", "Did you mean 'num_classes'"),
    Fault('unknown key in a transform', COCO, {f'{PIPE}.2.keep_ration': True}, f'{PIPE}.2.keep_ration', "'keep_ration'", "Did you mean 'keep_ratio'"),
    Fault("mmdet 2's name in a transform", COCO, {}, f'{PIPE}.3.flip_ratio', "'flip_ratio'", 'It is called prob now', also=rename(f'{PIPE}.3.prob', 'flip_ratio')),
    Fault('unknown key in a hook', DET, {'default_hooks.checkpoint.max_keep_ckpt': 2}, 'default_hooks.checkpoint', "'max_keep_ckpt'", "Did you mean 'max_keep_ckpts'"),
    Fault('unknown key in a loop', SEG, {'train_cfg.max_iter': 100}, 'train_cfg.max_iter', "'max_iter'", "Did you mean 'max_iters'"),
    Fault('paramwise_cfg inside the optimizer', DET, {'optim_wrapper.optimizer.paramwise_cfg': dict(norm_decay_mult=0.0)}, 'optim_wrapper.optimizer.paramwise_cfg', "'paramwise_cfg'", 'It belongs into optim_wrapper.paramwise_cfg'),
    Fault('clip_grad inside the optimizer', DET, {'optim_wrapper.optimizer.clip_grad': dict(max_norm=35)}, 'optim_wrapper.optimizer.clip_grad', "'clip_grad'", 'It belongs into optim_wrapper.clip_grad'),
    Fault('unknown key in a scheduler', DET, {'param_scheduler.1.milestone': [8]}, 'param_scheduler.1.milestone', "'milestone'", "Did you mean 'milestones'"),
    Fault('a dataset key of mmdet 2', DET, {f'{LOADER}.dataset.img_prefix': 'train/'}, f'{LOADER}.dataset.img_prefix', "'img_prefix'", 'It is called data_prefix now'),
    Fault('misspelt key at the top', DET, {}, 'optim_wraper', "'optim_wraper'", "Did you mean 'optim_wrapper'", also=rename('optim_wrapper', 'optim_wraper')),
    Fault('misspelt custom_hooks', SEG, {'custom_hook': [dict(type='EMAHook')]}, 'custom_hook', "'custom_hook'", "Did you mean 'custom_hooks'"),
    Fault('misspelt default hook', DET, {'default_hooks.checkpont': dict(type='CheckpointHook', interval=1)}, 'default_hooks.checkpont', "'checkpont'", "Did you mean 'checkpoint'"),
    Fault('keys of mmdet 2', DET, {'lr_config': dict(policy='step', step=[8, 11])}, 'lr_config', "'lr_config'", 'Write param_scheduler'),
    Fault('fp16 of mmdet 2', DET, {'fp16': dict(loss_scale=512.0)}, 'fp16', "'fp16'", "type='AmpOptimWrapper'"),
    Fault('_delete_ with nothing to delete', DET, {f'{MODEL}.neck._delete_': True}, f'{MODEL}.neck._delete_', "'_delete_'", 'Remove _delete_'),
    Fault('_delete_ forgotten for the Distiller', DET, {}, 'model', 'the keys of kdplugin.Distiller alone', '_delete_=True', also=_leftover),
    Fault('a list where a dict belongs', DET, {'train_cfg': [1, 2]}, 'train_cfg', 'to be a dict', 'Write a dict'),
    Fault('hooks as a dict', DET, {'custom_hooks': dict(type='EMAHook')}, 'custom_hooks', 'to be a list', 'Write a list'),
    Fault('no validation metric', DET, {'val_evaluator': DROP}, 'val_evaluator', 'together', 'Add what is missing'),
    Fault("MMRazor's model", DET, {}, 'model', 'SingleTeacherDistill', 'tools/migrate_mmrazor.py', also=_razor),
    Fault("MMRazor's key in the Distiller", DET, {'model.distiller': dict(type='ConfigurableDistiller')}, 'model.distiller', "'distiller'", 'tools/migrate_mmrazor.py'),
    Fault("MMRazor's recorder in a pair", DET, {'model.pairs.neck.recorder': 'fpn'}, 'model.pairs.neck.recorder', "'recorder'", 'tools/migrate_mmrazor.py'),
    Fault('unknown type of a backbone', DET, {f'{MODEL}.backbone.type': 'ResNett'}, f'{MODEL}.backbone.type', "'ResNett'", "Did you mean 'ResNet'"),
    Fault('unknown type of a loss', DET, {f'{MODEL}.bbox_head.loss_bbox.type': 'GiouLoss'}, f'{MODEL}.bbox_head.loss_bbox.type', "'GiouLoss'", "'GIoULoss'"),
    Fault('unknown transform', COCO, {f'{PIPE}.4.type': 'PackDetInput'}, f'{PIPE}.4.type', "'PackDetInput'", "Did you mean 'PackDetInputs'"),
    Fault('unknown hook', DET, {'custom_hooks': [dict(type='EMAHok')]}, 'custom_hooks.0.type', "'EMAHok'", "Did you mean 'EMAHook'"),
    Fault('unknown dataset', DET, {f'{LOADER}.dataset.type': 'CocoDatset'}, f'{LOADER}.dataset.type', "'CocoDatset'", "Did you mean 'CocoDataset'"),
    Fault('unknown optimizer', DET, {'optim_wrapper.optimizer.type': 'SDG'}, 'optim_wrapper.optimizer.type', "'SDG'", "Did you mean 'SGD'"),
    Fault('a transform of the other project', DET, {f'{PIPE}.3.type': 'PackSegInputs'}, f'{PIPE}.3.type', "'PackSegInputs'", "Did you mean 'mmseg.PackSegInputs'"),
    Fault('the wrong default scope', DET, {'default_scope': 'mmseg'}, f'{MODEL}', "'GFL'", "Did you mean 'mmdet.GFL'"),
    Fault('an unknown scope', DET, {'default_scope': 'mmdett'}, 'default_scope', "'mmdett'", "Did you mean 'mmdet'"),
    Fault('a prefix of a package that is not there', DET, {f'{MODEL}.backbone.type': 'mmclss.ResNet'}, f'{MODEL}.backbone.type', "'mmclss.ResNet'", 'Install it, or correct the prefix'),
    Fault('Distiller without prefix', DET, {'model.type': 'Distiller'}, 'model.type', "'Distiller'", "Did you mean 'kdplugin.Distiller'"),
    Fault('our hook without prefix', SEG, {'custom_hooks': [dict(type='WeightProjectionHook', source='x.pth')]}, 'custom_hooks.0.type', "'WeightProjectionHook'", "'kdplugin.WeightProjectionHook'"),
    Fault('an evaluator of the wrong kind', DET, {'val_evaluator.metric': 'mAP'}, 'val_evaluator.metric', "'mAP'", 'Choose one'),
    Fault('arguments missing in a transform', SEG, {f'{PIPE}.1': dict(type='RandomCrop')}, f'{PIPE}.1', 'Expected crop_size', 'Add it'),
)  # fmt: skip

FILES = (
    Fault('data root missing', DET, {f'{LOADER}.dataset.data_root': 'data/digit_scene/'}, f'{LOADER}.dataset.data_root', 'data/digit_scene', "Did you mean 'data/digit_scenes'"),
    Fault('annotation file missing', DET, {f'{LOADER}.dataset.ann_file': 'annotations/trian.json'}, f'{LOADER}.dataset.ann_file', 'trian.json', 'train.json'),
    Fault('data root twice', DET, {f'{LOADER}.dataset.ann_file': 'data/digit_scenes/annotations/train.json'}, f'{LOADER}.dataset.ann_file', 'does not exist', 'It names data_root once more'),
    Fault('image folder missing', SEG, {f'{LOADER}.dataset.data_prefix.img_path': 'train/image'}, f'{LOADER}.dataset.data_prefix.img_path', 'train/image', "Did you mean"),
    Fault('images that the annotations do not list', COCO, {f'{LOADER}.dataset.data_prefix.img': 'val2017/'}, f'{LOADER}.dataset.ann_file', 'is not there', 'Correct data_prefix.img'),
    Fault('image folder of the other split', DET, {f'{LOADER}.dataset.data_prefix.img': 'val/images/'}, f'{LOADER}.dataset.data_prefix', 'of one split', 'Correct one of them', level='warning'),
    Fault('wrong suffix of images', SEG, {f'{LOADER}.dataset.img_suffix': '.jpg'}, f'{LOADER}.dataset.img_suffix', "'.jpg'", 'Correct img_suffix'),
    Fault('teacher checkpoint missing', SEG, {'model.teacher.checkpoint': 'work_dirs/teacher_digits/iter_80.pth'}, 'model.teacher.checkpoint', 'does not exist', 'iter_800.pth'),
    Fault('teacher config missing', DET, {'model.teacher.cfg': 'gfl_techer.py'}, 'model.teacher', 'gfl_techer.py does not exist', 'Check teacher.cfg'),
    Fault('no teacher checkpoint', DET, {'model.teacher.checkpoint': DROP}, 'model.teacher', 'Expected a checkpoint in teacher', 'A random teacher teaches nothing'),
    Fault('pretrained weights missing', DET, {f'{MODEL}.backbone.init_cfg': dict(type='Pretrained', checkpoint='r18.pth')}, MODEL, 'r18.pth', 'Correct init_cfg'),
    Fault('load_from missing', DET, {'load_from': 'start.pth'}, 'load_from', 'start.pth', 'Correct init_cfg or load_from'),
    Fault('work dir below a file', DET, {'work_dir': 'gfl_kd.py/work'}, 'work_dir', 'to be writable|writable work dir', 'Choose another one'),
    Fault('a teacher of another model', DET, {'model.teacher.checkpoint': 'work_dirs/teacher_digits/iter_800.pth'}, 'model.teacher', 'to fit the model in all', 'Use the checkpoint that was trained', full=True),
    Fault('a teacher file that is none', DET, {'model.teacher.checkpoint': 'gfl_kd.py'}, 'model.teacher', 'damaged or not a PyTorch file', '', full=True),
    Fault('load_from of another model', SEG, {'load_from': 'gfl_teacher.pth'}, 'load_from', 'none of its', 'Give a checkpoint of this model', full=True),
    Fault('resume from weights alone', DET, {'load_from': 'student_weights.pth', 'resume': True}, 'load_from', 'has no optimizer', 'Set resume=False', full=True),
    Fault('resume of a finished run', DET, {'load_from': 'student_done.pth', 'resume': True}, 'load_from', 'Nothing is left to train|is of 12', 'raise the length', full=True),
    Fault('resume of another student', DET, {'load_from': 'gfl_teacher.pth', 'resume': True}, 'load_from', 'to be a checkpoint of this student', 'Resume with the config that trained it', full=True),
)  # fmt: skip

DATA = (
    Fault('classes of the student', DET, {f'{MODEL}.bbox_head.num_classes': 80}, f'{MODEL}.bbox_head', 'the 10 classes', 'Set num_classes of the head'),
    Fault('classes of the data set forgotten', DET, {f'{LOADER}.dataset.metainfo': DROP, 'val_dataloader.dataset.metainfo': DROP}, f'{MODEL}.bbox_head', 'the 80 classes', 'or metainfo of the dataset'),
    Fault('one class as a text', SEG, {}, 'train_dataloader', "the text 'zero'", "Write ('zero',)", also=_text_class),
    Fault('CLASSES in capitals', DET, {f'{LOADER}.dataset.metainfo.CLASSES': ('zero',)}, f'{LOADER}.dataset.metainfo', "'CLASSES'", 'Write it in lower case'),
    Fault('classes that the annotations lack', DET, {f'{LOADER}.dataset.metainfo.classes': ('0', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'), 'val_dataloader.dataset.metainfo.classes': ('0', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')}, f'{LOADER}.dataset.metainfo.classes', "['0']", 'Correct metainfo'),
    Fault('classes in another order in validation', DET, {}, 'val_dataloader.dataset.metainfo', 'in another order', 'Give both the same metainfo', also=_swap_classes),
    Fault('class weights of another length', SEG, {f'{MODEL}.decode_head.loss_decode.class_weight': [1.0] * 10}, f'{MODEL}.decode_head.loss_decode.class_weight', 'Expected 11 weights', 'Correct the list'),
    Fault('labels beyond the classes', SEG, {f'{MODEL}.decode_head.num_classes': 5, 'model.pairs': {}, f'{MODEL}.decode_head.loss_decode.class_weight': None}, f'{MODEL}.decode_head', 'the 11 classes', 'Set num_classes'),
    Fault('nothing packs', SEG, {}, PIPE, 'to end with a transform that packs', "type='PackSegInputs'", also=_drop_step(2)),
    Fault('something after packing', DET, {}, PIPE, 'at the end of the pipeline', 'Move it before', also=_insert(4, dict(type='RandomFlip', prob=0.5))),
    Fault('no annotations loaded', DET, {}, PIPE, 'the labels of the images', "type='LoadAnnotations'", also=_drop_step(1)),
    Fault('normalised twice', DET, {}, PIPE, 'normalised twice|Normalize in the pipeline', 'remove one of them', level='warning', also=_insert(2, dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1]))),
    Fault('persistent workers without workers', DET, {f'{LOADER}.persistent_workers': True}, f'{LOADER}.persistent_workers', 'beside num_workers=0', 'Set one of them'),
    Fault('an endless sampler in epochs', DET, {f'{LOADER}.sampler': dict(type='InfiniteSampler', shuffle=True)}, f'{LOADER}.sampler', 'InfiniteSampler', "type='DefaultSampler'"),
    Fault('an endless validation', SEG, {'val_dataloader.sampler': dict(type='InfiniteSampler', shuffle=False)}, 'val_dataloader.sampler', 'a sampler that ends', "type='DefaultSampler'"),
    Fault('training data in order', DET, {f'{LOADER}.sampler.shuffle': False}, f'{LOADER}.sampler.shuffle', 'shuffle=False', 'Write shuffle=True', level='warning'),
    Fault('validation on the training data', DET, {'val_dataloader.dataset.ann_file': 'annotations/train.json', 'val_dataloader.dataset.data_prefix.img': 'train/images/', 'val_evaluator.ann_file': 'data/digit_scenes/annotations/train.json'}, 'val_dataloader.dataset', 'got the same', 'correct ann_file', level='warning'),
    Fault('annotations of other images in the metric', DET, {'val_evaluator.ann_file': 'data/digit_scenes/annotations/train.json'}, 'val_evaluator.ann_file', 'the annotations of val_dataloader', 'give the same file'),
    Fault('batch size 0', DET, {f'{LOADER}.batch_size': 0}, f'{LOADER}.batch_size', 'got 0', 'Correct batch_size'),
    Fault('mean and std of 0 to 1', DET, {f'{MODEL}.data_preprocessor.mean': [0.485, 0.456, 0.406], f'{MODEL}.data_preprocessor.std': [0.229, 0.224, 0.225]}, f'{MODEL}.data_preprocessor.mean', 'from 0 to 255', 'Multiply them by 255'),
    Fault('colours not turned', DET, {f'{MODEL}.data_preprocessor.bgr_to_rgb': False}, f'{MODEL}.data_preprocessor.bgr_to_rgb', 'red, green, blue', 'Correct one of them', level='warning'),
    Fault('teacher normalises otherwise', DET, {f'{MODEL}.data_preprocessor.mean': [103.53, 116.28, 123.675], f'{MODEL}.data_preprocessor.std': [1.0, 1.0, 1.0], f'{MODEL}.data_preprocessor.bgr_to_rgb': False}, 'model.teacher', 'to normalise images alike', "preprocess='own'", level='warning'),
    Fault('mask head without masks', COCO, {f'{MODEL}.roi_head': dict(mask_head=dict(type='FCNMaskHead'))}, PIPE, 'with_mask=True', 'Add it'),
)  # fmt: skip
