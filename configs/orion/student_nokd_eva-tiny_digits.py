# The tiny ORION's student without a teacher's help: a quarter of the heads and neurons of the teacher's backbone,
#   sliced from its weights by a plan, between its frozen neck and head. The backbone alone is trained, shortly.
# Before: the teacher, and the plan:
#   python tools/prune_heads.py configs/orion/teacher_eva-tiny_digits.py work_dirs/orion_digits/teacher/iter_600.pth \
#     work_dirs/orion_digits/quarter --heads 2 --neurons 0.25 --batch-size 8
# Train: python tools/train.py configs/orion/student_nokd_eva-tiny_digits.py
# Expected: docs/results/orion_digits.json, `no_kd`, by tools/benchmarks/orion_digits.py; `random` is the same without
#   the hook
_base_ = ['./eva-tiny_digits.py']
teacher = 'work_dirs/orion_digits/teacher/iter_600.pth'
plan = 'work_dirs/orion_digits/quarter/plan.json'
iters = 60
peak_lr = 1e-3
optim_wrapper = dict(constructor='kdplugin.TrainedParameters', optimizer=dict(lr=peak_lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=peak_lr, total_steps=iters, pct_start=0.1, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
default_hooks = dict(checkpoint=dict(interval=iters // 2))
model = dict(
    type='kdplugin.OrionStudent',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='kdplugin.EVAViTStudent', plan=plan, **_base_.backbone),
    neck=_base_.neck,
    heads=dict(bbox_head=dict(train_cfg=_base_.model_train_cfg, test_cfg=_base_.model_test_cfg, **_base_.bbox_head)),
    checkpoint=teacher,
)
custom_hooks = [
    dict(type='kdplugin.WeightProjectionHook', source=teacher, target='backbone', plan=plan, min_coverage=1.0)
]
