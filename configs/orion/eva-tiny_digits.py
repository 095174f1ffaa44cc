# What teacher and students of the tiny ORION share: digit scenes of 64x64, the preprocessing, the parts that students
#   leave as they are (neck and head), and the schedule.
# Data: python tools/make_digit_scenes.py data/orion_digits --train 4000 --val 250 --size 64 --digits 1 3 \
#   --digit-size 24 34 --contrast 0.45 0.9 --texture 0.01 0.05
_base_ = [
    '../_base_/datasets/digit_scenes_det.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer')
digit_scenes = dict(
    train=4000, val=250, size=64, seed=0, digits=(1, 3), digit_size=(24, 34), contrast=(0.45, 0.9), texture=(0.01, 0.05)
)
data_root = 'data/orion_digits/'
data_preprocessor = dict(
    type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, pad_size_divisor=8
)
train_dataloader = dict(
    batch_size=16, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=dict(data_root=data_root)
)
val_dataloader = dict(batch_size=25, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# The teacher's backbone; a patch of 8 makes 8x8 tokens, four windows of 4x4.
backbone = dict(
    img_size=64,
    patch_size=8,
    window_size=4,
    embed_dim=96,
    depth=6,
    head_dim=12,
    mlp_ratio=8 / 3,
    drop_path_rate=0.0,
    pt_hw_seq_len=8,
    pretrain_img_size=64,
)
neck = dict(type='kdplugin.SimpleFeaturePyramid', in_channels=96, out_channels=64, scales=(1,))
# Anchors of 32 pixels at stride 8: digits are 12 to 34 pixels large.
bbox_head = dict(
    type='GFLHead',
    num_classes=10,
    in_channels=64,
    feat_channels=64,
    stacked_convs=1,
    norm_cfg=dict(type='GN', num_groups=8),
    anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8]),
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
    loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
    reg_max=8,
    loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
)
model_train_cfg = dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False)
model_test_cfg = dict(
    nms_pre=200, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20
)

iters = 600
peak_lr = 1.5e-3
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=peak_lr, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='OneCycleLR', eta_max=peak_lr, total_steps=iters, pct_start=0.1, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
