# PKD with a timm student: GFL-R101 teaches GFL on timm's MobileNetV4-Conv-Small, 1x on COCO.
# Source: Cao et al., PKD (arXiv 2207.02039).
# Published: none for this combination.
# Weights: the teacher's come from mmdet's model zoo, the student's backbone from timm's hub, at the start.
# Train: tools/dist_train.sh configs/detection/pkd_gfl-r101_gfl-timm-mobilenetv4-small_1x_coco.py 8
# Expected: not measured here. The weight is found from a share of the task.
# Cost: 12 epochs of COCO; the teacher (51,432,665 parameters) runs to its neck in every step.
_base_ = ['./gfl_timm-mobilenetv4-small_1x_coco.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    ),
    pairs=dict(neck=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), target_ratio=0.5)),
)
