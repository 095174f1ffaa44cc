# PKD between unlike detectors: Mask R-CNN on Swin-S teaches RetinaNet-R50, 2x on COCO.
# Source: Cao et al., PKD (arXiv 2207.02039); taps and weights are those of MMRazor 1.x: the first four levels, 6 each,
#   added. RetinaNet's P3 to P6 are enlarged to the teacher's P2 to P5.
# Published: 37.4 -> 41.5 box AP, teacher 48.2 (MMRazor's README).
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/pkd_mask-rcnn-swin-s_retinanet-r50_2x_coco.py 8
# Expected: not measured here.
# Cost: 24 epochs of COCO; the teacher (69,112,506 parameters) runs to its neck in every step.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py']

level = dict(loss=dict(type='kdplugin.PKDLoss'), weight=6.0)
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco_20210903_104808-b92c91f1.pth',
    ),
    pairs=dict(
        p3=dict(tap='neck.fpn_convs.0', **level),
        p4=dict(tap='neck.fpn_convs.1', **level),
        p5=dict(tap='neck.fpn_convs.2', **level),
        p6=dict(tap='neck.fpn_convs.3', **level),
    ),
)
