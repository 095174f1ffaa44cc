# The quickstart's student with a teacher: the baseline's whole recipe, its 400 scenes included, and three pairs.
# Source: KL on logits, Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531);
#   cosine on features at two levels.
#   total = CE + 0.2 * T^2 * KL(teacher || student) + (1 - cos) after 1/16 of the backbone + (1 - cos) before the
#   classifier, T = 4, all over digit pixels: five pixels in six are background, on which both agree at once.
#   Edge pixels, which have no label, count: there the teacher's opinion is all there is.
# Train: python tools/train.py configs/quickstart/kd_digits.py
# Expected: docs/results/quickstart.json, measured by tools/benchmarks/quickstart_gain.py
_base_ = ['./baseline_digits.py']

digits = dict(ignore_index=0)
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='kdplugin::quickstart/teacher_digits.py', checkpoint='work_dirs/teacher_digits/iter_800.pth'),
    pairs=dict(
        logits=dict(
            tap='decode_head.conv_seg',
            loss=dict(type='kdplugin.KLDivergenceLoss', temperature=4.0, **digits),
            weight=0.2,
        ),
        mid=dict(
            student_tap='backbone.features.8',
            teacher_tap='backbone.layer3',
            loss=dict(type='kdplugin.CosineLoss', **digits),
            weight=1.0,
        ),
        high=dict(
            student_tap='decode_head.decoder.0',
            teacher_tap='decode_head.dropout',
            loss=dict(type='kdplugin.CosineLoss', **digits),
            weight=1.0,
        ),
    ),
)
