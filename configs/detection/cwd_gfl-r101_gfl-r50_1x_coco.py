# CWD: GFL-R101 teaches GFL-R50 where each channel of the pyramid is active, 1x on COCO.
# Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256); taps and weights are
#   those of MMRazor 1.x: five levels, 10 each, added; a pair is their mean, so 50.
# Published: 40.2 -> 41.9 box AP, teacher 44.7 (MMRazor's README, which calls the tap "cls head"; its config taps the
#   neck).
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/cwd_gfl-r101_gfl-r50_1x_coco.py 8
# Expected: not measured here.
# Cost: 12 epochs of COCO; the teacher (51,432,665 parameters) runs to its neck in every step.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    ),
    pairs=dict(neck=dict(tap='neck', loss=dict(type='kdplugin.CWDLoss', temperature=1.0), weight=50.0)),
)
