# CWD with a timm teacher: UPerNet on ConvNeXt V2-Tiny teaches PSPNet-R18, 80k on Cityscapes.
# Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256).
# Published: none for this combination.
# Weights: train the teacher with upernet_timm-convnextv2-tiny_80k_cityscapes-512x1024.py first.
# Train: tools/dist_train.sh \
#     configs/segmentation/cwd_upernet-timm-convnextv2-tiny_pspnet-r18_80k_cityscapes-512x1024.py 4
# Expected: not measured here.
# Cost: 80,000 steps of 4 x 2 images; the teacher (60,185,254 parameters) runs to its classifier in every step.
_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='kdplugin::segmentation/upernet_timm-convnextv2-tiny_80k_cityscapes-512x1024.py',
        checkpoint='work_dirs/upernet_timm-convnextv2-tiny_80k_cityscapes-512x1024/iter_80000.pth',
    ),
    pairs=dict(
        logits=dict(tap='decode_head.conv_seg', loss=dict(type='kdplugin.CWDLoss', temperature=1.0), weight=5.0),
    ),
)
