# CWD: PSPNet-R101 teaches PSPNet-R18 where each class is active, 80k on Cityscapes.
# Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256); tap, T and weight are
#   those of MMRazor 1.x. Pixels without a label do not count here; ignore_index=None counts them as MMRazor does.
# Published: 74.87 -> 75.54 mIoU, teacher 79.76 (MMRazor's README).
# Weights: the teacher's come from mmseg's model zoo at the start.
# Train: tools/dist_train.sh configs/segmentation/cwd_pspnet-r101_pspnet-r18_80k_cityscapes-512x1024.py 4
# Expected: not measured here.
# Cost: 80,000 steps of 4 x 2 images; the teacher (67,967,622 parameters) runs to its classifier in every step.
_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py']

model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth',
    ),
    pairs=dict(
        logits=dict(tap='decode_head.conv_seg', loss=dict(type='kdplugin.CWDLoss', temperature=1.0), weight=5.0),
    ),
)
