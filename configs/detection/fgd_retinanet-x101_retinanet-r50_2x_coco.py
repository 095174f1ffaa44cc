# FGD: RetinaNet-X101 teaches RetinaNet-R50 objects, background and their relations, 2x on COCO.
# Source: Yang et al., Focal and Global Knowledge Distillation for Detectors (arXiv 2111.11837). Weights are the
#   authors' for one-stage detectors as means at 800x1344 with 7 objects per image: see kdplugin.FGD.
# Published: 37.4 -> 40.7 box AP, teacher 41.0 (the authors' README; they start neck and head from the teacher's, as
#   here).
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/fgd_retinanet-x101_retinanet-r50_2x_coco.py 8
# Expected: not measured here.
# Cost: 24 epochs of COCO; the teacher (95,866,932 parameters) runs to its neck in every step.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py']

teacher_file = 'https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth'
student = _base_.model
student.neck.init_cfg = dict(type='Pretrained', prefix='neck.', checkpoint=teacher_file)
student.bbox_head.init_cfg = dict(type='Pretrained', prefix='bbox_head.', checkpoint=teacher_file)
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=student,
    teacher=dict(cfg='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py', checkpoint=teacher_file),
    pairs=dict(
        neck=dict(
            type='kdplugin.FGD',
            tap='neck',
            temperature=0.5,
            foreground=9.0,
            background=0.64,
            attention=1.0,
            relation=28.7,
            weight=1.0,
        ),
    ),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
del student
