# ORION's EVA-02-L with 8 of 16 heads in each block (253.0 M of 303.4 M parameters), trained to see as the whole does.
#   There are no labels and no heads: total = 0.7 * (0.5 * features + 0.3 * attention). A task and an output term need a
#   head of ORION's own package: heads=dict(pts_bbox_head=dict(type=...)), see docs/orion.md.
# Before: python tools/prune_heads.py configs/orion/orion_student_eva-l_8heads_b2d.py ckpts/Orion.pth \
#   work_dirs/orion/8heads --heads 8
# Train: tools/dist_train.sh configs/orion/orion_student_eva-l_8heads_b2d.py 8 --amp
# Expected: not measured; nobody here has the data. Sizes: docs/results/orion_size.json
_base_ = ['./b2d.py']
plan = '{{$ORION_PLAN:work_dirs/orion/8heads/plan.json}}'
model = dict(
    type='kdplugin.Distiller',
    student=dict(
        type='kdplugin.OrionStudent',
        data_preprocessor=_base_.data_preprocessor,
        backbone=dict(type='kdplugin.EVAViTStudent', plan=plan, drop_path_rate=0.0, with_cp=True),
        supervised=False,
    ),
    teacher=dict(model=_base_.teacher_model, checkpoint=_base_.checkpoint),
    alpha=0.7,
    pairs=dict(
        features_5=dict(tap='backbone.blocks.5', **_base_.features),
        features_11=dict(tap='backbone.blocks.11', **_base_.features),
        features_17=dict(tap='backbone.blocks.17', **_base_.features),
        features_23=dict(tap='backbone.blocks.23', **_base_.features),
        attention=dict(type='kdplugin.AttentionKD', blocks=[5, 11, 17, 23], plan=plan, queries=64, weight=0.3),
    ),
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
