# LD: GFL-R101 teaches GFL-R50 its box distributions, 1x on COCO.
# Source: Zheng et al., Localization Distillation for Dense Object Detection (arXiv 2102.12252), T = 10.
# Published: 40.1 -> 42.1 box AP (the authors' README). They distil positives and a valuable region around them, with
#   the teacher's neck too; here all positions of a level count alike, so each weight is found from a share of the task.
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/ld_gfl-r101_gfl-r50_1x_coco.py 8
# Expected: not measured here. kdplugin.CrossKD weighs boxes by the teacher's confidence.
# Cost: 12 epochs of COCO; the teacher (51,432,665 parameters) runs to its box head in every step.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py']

# One path for each level: the head multiplies what gfl_reg puts out by a scale of the level.
level = dict(loss=dict(type='kdplugin.LocalizationDistillationLoss', temperature=10.0), target_ratio=0.05)
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    ),
    pairs=dict(
        p3=dict(tap='bbox_head.scales.0', **level),
        p4=dict(tap='bbox_head.scales.1', **level),
        p5=dict(tap='bbox_head.scales.2', **level),
        p6=dict(tap='bbox_head.scales.3', **level),
        p7=dict(tap='bbox_head.scales.4', **level),
    ),
)
