# PKD: RetinaNet-X101 teaches RetinaNet-R50 the pattern of its pyramid, 2x on COCO.
# Source: Cao et al., PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient
#   (arXiv 2207.02039); taps and weights are those of MMRazor 1.x: the first four levels, 10 each, added.
# Published: 37.4 -> 40.8 box AP, teacher 41.0 (MMRazor's README).
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/pkd_retinanet-x101_retinanet-r50_2x_coco.py 8
# Expected: not measured here.
# Cost: 24 epochs of COCO; the teacher (95,866,932 parameters) runs to its neck in every step.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py']

level = dict(loss=dict(type='kdplugin.PKDLoss'), weight=10.0)
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
    ),
    pairs=dict(
        p3=dict(tap='neck.fpn_convs.0', **level),
        p4=dict(tap='neck.fpn_convs.1', **level),
        p5=dict(tap='neck.fpn_convs.2', **level),
        p6=dict(tap='neck.fpn_convs.3', **level),
    ),
)
