# The tiny ORION's student with its teacher: the whole recipe of student_nokd_eva-tiny_digits.py, and
#   total = 0.3 * task + 0.7 * (0.5 * features + 0.3 * attention + 0.2 * outputs), outputs at T = 3
# Source: the weights are those of the design that this replaces; attention by MiniLM (arXiv 2002.10957),
#   outputs by Hinton et al. (arXiv 1503.02531), each class by itself, as GFL scores them.
# Train: python tools/train.py configs/orion/student_kd_eva-tiny_digits.py
# Expected: docs/results/orion_digits.json, `kd`, by tools/benchmarks/orion_digits.py
_base_ = ['./student_nokd_eva-tiny_digits.py']
features = dict(
    student_layout='NHWC', teacher_layout='NHWC', loss=dict(type='kdplugin.CosineLoss'), weight=0.25
)  # two of them: 0.5
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='kdplugin::orion/teacher_eva-tiny_digits.py', checkpoint=_base_.teacher),
    alpha=0.7,
    pairs=dict(
        features_mid=dict(tap='backbone.blocks.2', **features),
        features_high=dict(tap='backbone.blocks.5', **features),
        attention=dict(type='kdplugin.AttentionKD', blocks=[2, 5], plan=_base_.plan, weight=0.3),
        outputs=dict(
            tap='bbox_head.gfl_cls',
            loss=dict(type='kdplugin.KLDivergenceLoss', temperature=3.0, sigmoid=True),
            weight=0.2,
        ),
    ),
)
