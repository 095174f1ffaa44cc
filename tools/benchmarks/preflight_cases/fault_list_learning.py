# ruff: noqa: E501 - a table: one fault in a line
"""Kinds of fault by which a run goes on and learns nothing, or the wrong thing, or stops when it is measured."""

from __future__ import annotations

from preflight_cases.faults import DET, DROP, SEG, WAN, Fault

MODEL, PAIRS, HEAD = 'model.student', 'model.pairs', 'model.student.decode_head'
TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'
INIT = f'{MODEL}.backbone.init_cfg'

SILENT = (
    Fault('init_cfg without prefix', DET, {INIT: dict(type='Pretrained', checkpoint='student_weights.pth')}, INIT, 'none of its tensors arrived', "Write prefix='backbone.'", full=True),
    Fault('init_cfg of another width', DET, {INIT: dict(type='Pretrained', checkpoint='gfl_teacher.pth', prefix='backbone.')}, INIT, 'none of its tensors arrived', 'of this depth and width', full=True),
    Fault('frozen stages of random weights', DET, {f'{MODEL}.backbone.frozen_stages': 4}, f'{MODEL}.backbone.frozen_stages', 'random layers would rest', 'Write frozen_stages=-1', level='warning'),
    Fault('norm_eval of random weights', DET, {f'{MODEL}.backbone.norm_eval': True}, f'{MODEL}.backbone.norm_eval', 'random layers would rest', 'Write norm_eval=False', level='warning'),
    Fault('frozen parts of random weights', SEG, {'model.frozen': ['backbone']}, 'model.frozen', 'begin with random ones', 'Leave out frozen', level='warning'),
    Fault('anchors of another level', DET, {f'{MODEL}.bbox_head.anchor_generator.strides': [4, 8, 16, 32, 64]}, f'{MODEL}.bbox_head.anchor_generator.strides', 'strides of the maps', 'correct the strides', full=True),
    Fault('zero label reduced in training alone', SEG, {f'{TRAIN}.reduce_zero_label': True, f'{VAL}.reduce_zero_label': False}, f'{VAL}.reduce_zero_label', 'True and False', 'the same in both'),
    Fault('background reduced to nothing', SEG, {f'{TRAIN}.reduce_zero_label': True, f'{VAL}.reduce_zero_label': True}, f'{TRAIN}.reduce_zero_label', "'background' to keep its label 0", 'reduce_zero_label=False'),
    Fault('a class that is ignored', SEG, {f'{HEAD}.ignore_index': 10}, f'{HEAD}.ignore_index', 'would never be learnt', 'Write 255', level='warning'),
    Fault('batches of two for relations', DET, {f'{PAIRS}.neck.loss': dict(type='kdplugin.RKDLoss'), 'train_dataloader.batch_size': 2}, f'{PAIRS}.neck.loss', 'its value is 0', 'Raise batch_size'),
    Fault('one softmax over four sides', DET, {f'{PAIRS}.cls.tap': 'bbox_head.gfl_reg'}, f'{PAIRS}.cls.loss', 'one distribution for each side', 'LocalizationDistillationLoss', level='warning'),
    Fault('a misspelt key of nms', DET, {f'{MODEL}.test_cfg.nms': dict(type='nms', iou_thresh=0.6)}, 'val_dataloader', "unexpected keyword argument 'iou_thresh'", 'Correct', full=True),
    Fault('an evaluator whose file is not there', DET, {'val_evaluator.ann_file': 'data/digit_scene/annotations/val.json'}, 'val_evaluator.ann_file', 'does not exist', 'Give that of val_dataloader'),
    Fault('an evaluator without a file', DET, {'val_evaluator.ann_file': DROP}, 'val_evaluator', 'ground truth is required', 'Correct', full=True),
    Fault('a number where a metric takes several', DET, {'val_evaluator.proposal_nums': 100}, 'val_evaluator', 'not iterable', 'Correct', full=True),
    Fault('a validation of a video student', WAN, {'val_cfg': dict(type='ValLoop')}, 'val_cfg', 'no metric measures', 'Remove val_cfg'),
)  # fmt: skip
