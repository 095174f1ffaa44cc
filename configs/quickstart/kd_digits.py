# The quickstart's student with a teacher: the baseline's whole recipe, and four pairs.
# Source: KL on logits, Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531);
#   cosine on features at three levels.
# Train: python tools/train.py configs/quickstart/kd_digits.py
# Expected: docs/results/quickstart.json, measured by tools/benchmarks/quickstart_gain.py
_base_ = ['./baseline_digits.py']

feature_loss = dict(type='kdplugin.CosineLoss')
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='configs/quickstart/teacher_digits.py', checkpoint='work_dirs/teacher_digits/iter_800.pth'),
    pairs=dict(
        logits=dict(
            tap='decode_head.conv_seg', loss=dict(type='kdplugin.KLDivergenceLoss', temperature=2.0, ignore_index=digits), weight=0.5
        ),
        low=dict(student_tap='backbone.features.3', teacher_tap='backbone.layer2', loss=feature_loss, weight=1.0),
        mid=dict(student_tap='backbone.features.8', teacher_tap='backbone.layer3', loss=feature_loss, weight=1.0),
        high=dict(
            student_tap='decode_head.decoder.0', teacher_tap='decode_head.dropout', loss=feature_loss, weight=1.0
        ),
    ),
)
