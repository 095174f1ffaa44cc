# FCN-ResNet50 teaches MobileNetV3-Small on PASCAL VOC 2012: the baseline's whole recipe plus four pairs.
# Source: KL on logits, Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (2015); cosine on
#   features at three levels.
#   total = 1.0 * CE + 0.5 * T^2 * KL(teacher || student) + 0.3 * mean over levels of mean(1 - cos), T = 4
#   KLDivergenceLoss multiplies by T^2 itself; 0.3 times the mean over three levels is a weight of 0.1 each.
# Weights: as described in fcn-r50_torchvision_voc12.py (teacher) and in the baseline (ImageNet backbone).
# Train: python tools/train.py configs/segmentation/kd_fcn-r50_mbv3s-aspp_40k_voc12-512x512.py
# Compare: python tools/compare_runs.py work_dirs/mbv3s-aspp_40k_voc12-512x512 \
#     work_dirs/kd_fcn-r50_mbv3s-aspp_40k_voc12-512x512 --out work_dirs/compare_voc12
# Expected: not measured yet; the baseline is the same recipe, data, seed and budget without a teacher.
# Cost: the baseline's, plus a teacher forward of 138.4 G multiply-adds per image in every step.
_base_ = ['./mbv3s-aspp_40k_voc12-512x512.py']

feature_loss = dict(type='kdplugin.CosineLoss')
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='kdplugin::segmentation/fcn-r50_torchvision_voc12.py',
        checkpoint='checkpoints/fcn_resnet50_coco_voc_mmseg.pth',
    ),
    task_weight=1.0,
    pairs=dict(
        logits=dict(
            tap='decode_head.conv_seg',
            loss=dict(type='kdplugin.KLDivergenceLoss', temperature=4.0, ignore_index=255),
            weight=0.5,
        ),
        low=dict(student_tap='backbone.features.1', teacher_tap='backbone.layer1', loss=feature_loss, weight=0.1),
        mid=dict(student_tap='backbone.features.3', teacher_tap='backbone.layer2', loss=feature_loss, weight=0.1),
        high=dict(student_tap='backbone.features.12', teacher_tap='backbone.layer4', loss=feature_loss, weight=0.1),
    ),
)
