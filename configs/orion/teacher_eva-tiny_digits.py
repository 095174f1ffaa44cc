# The tiny ORION's teacher: an EVA-ViT with eight heads in each of six blocks, a pyramid of one level and GFL's head,
#   all from random weights. It is a plain detector of mmdet: any may teach an OrionStudent of the same neck and head.
# Train: python tools/train.py configs/orion/teacher_eva-tiny_digits.py --work-dir work_dirs/orion_digits/teacher
# Expected: docs/results/orion_digits.json, `teacher`
_base_ = ['./eva-tiny_digits.py']
model = dict(
    type='GFL',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='kdplugin.EVAViT', num_heads=8, **_base_.backbone),
    neck=_base_.neck,
    bbox_head=_base_.bbox_head,
    train_cfg=_base_.model_train_cfg,
    test_cfg=_base_.model_test_cfg,
)
