# ORION's EVA-02-L with half the heads and half the neurons (152.3 M of 303.4 M parameters). Pruned neurons change what
#   ffn_ln normalises over (docs/pruning.md), so there is more to learn: alpha is 0.8 in the first epoch, then falls
#   from 0.7 to 0.6. Such a backbone does not go back into ORION's layout.
# Before: python tools/prune_heads.py configs/orion/orion_student_eva-l_half_b2d.py ckpts/Orion.pth \
#   work_dirs/orion/half --heads 8 --neurons 0.5
# Train: tools/dist_train.sh configs/orion/orion_student_eva-l_half_b2d.py 8 --amp
# Expected: not measured; nobody here has the data. Sizes: docs/results/orion_size.json
_base_ = ['./orion_student_eva-l_8heads_b2d.py']
plan = '{{$ORION_PLAN:work_dirs/orion/half/plan.json}}'
model = dict(
    student=dict(backbone=dict(plan=plan)),
    alpha=[
        dict(kind='constant', start=0.8, end=1, by_epoch=True),
        dict(kind='linear', start=0.7, stop=0.6, by_epoch=True),
    ],
    pairs=dict(attention=dict(plan=plan)),
)
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source=_base_.checkpoint,
        target='backbone',
        prefix='img_backbone.',
        plan=plan,
        min_coverage=1.0,
    )
]
