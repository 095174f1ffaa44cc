# Segmentation check, student with a teacher: the baseline's whole recipe and two pairs.
# Source: KL on logits (arXiv 1503.02531), PKD before the classifier (arXiv 2207.02039).
_base_ = ['./baseline_dubai.py']
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='configs/real_data/teacher_dubai.py', checkpoint='work_dirs/real_data/teacher_dubai/iter_400.pth'),
    pairs=dict(
        logits=dict(
            tap='decode_head.conv_seg', loss=dict(type='kdplugin.KLDivergenceLoss', temperature=2.0), weight=2.0
        ),
        features=dict(tap='decode_head.decoder.0', loss=dict(type='kdplugin.PKDLoss'), weight=1.0),
    ),
)
