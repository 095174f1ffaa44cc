# Mask KD: Mask R-CNN R101 teaches Mask R-CNN R50 its masks of the labelled objects, and its pyramid by PKD, 2x on COCO.
# Source: the papers are named in the docstring of kdplugin.MaskKD; Cao et al., PKD (arXiv 2207.02039).
# Published: none for this combination.
# Weights: the teacher's come from mmdet's model zoo at the start (box AP 40.8, mask AP 36.6).
# Train: tools/dist_train.sh configs/detection/mask-kd_mask-rcnn-r101_mask-rcnn-r50_2x_coco.py 8
# Expected: not measured here. Both weights are found from a share of the task.
# Cost: 24 epochs of COCO; the teacher (63,388,464 parameters) runs to its neck and its mask head in every step.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r101_fpn_2x_coco/mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7.pth',
    ),
    pairs=dict(
        masks=dict(type='kdplugin.MaskKD', target_ratio=0.2),
        neck=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), target_ratio=0.3),
    ),
)
