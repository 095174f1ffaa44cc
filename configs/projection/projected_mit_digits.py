# The same student, started from the teacher's weights: backbone and head, every second layer, at half the width.
# Train: python tools/train.py configs/projection/teacher_mit_digits.py
#   python tools/train.py configs/projection/projected_mit_digits.py
# Expected: docs/results/projection_start.json, start 'svd', by tools/benchmarks/projection_start.py
_base_ = ['./random_mit_digits.py']
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source='work_dirs/teacher_mit_digits/iter_600.pth',
        target='',  # the head reads what the backbone writes: projected alone, the backbone would leave it random
        method='svd',
        layers='uniform',
        head_dim=32,
    )
]
