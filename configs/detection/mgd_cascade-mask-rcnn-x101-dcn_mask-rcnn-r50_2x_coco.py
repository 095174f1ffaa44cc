# MGD for instances: Cascade Mask R-CNN X101-DCN teaches Mask R-CNN R50, 2x on COCO.
# Source: Yang et al., Masked Generative Distillation (arXiv 2205.01529), alpha 5e-7 as a sum, 45 % hidden; 11.46 is the
#   same as a mean over P2 to P6 at 800x1344: see kdplugin.MGD.
# Published: 35.4 -> 38.1 mask AP (the authors' README; their teacher is a Cascade Mask R-CNN X101-DCN too, and neck and
#   head do not start from it, as here).
# Weights: the teacher's come from mmdet's model zoo at the start (box AP 47.3, mask AP 41.1).
# Train: tools/dist_train.sh configs/detection/mgd_cascade-mask-rcnn-x101-dcn_mask-rcnn-r50_2x_coco.py 8
# Expected: not measured here.
# Cost: 24 epochs of COCO; the teacher (98,517,082 parameters) runs to its neck in every step.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::dcn/cascade-mask-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/dcn/cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco/cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco-e75f90c8.pth',
    ),
    pairs=dict(neck=dict(type='kdplugin.MGD', tap='neck', mask_ratio=0.45, weight=11.46)),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
