# What the ORION students share: Bench2Drive's frames as rigs of six cameras, the teacher, and the schedule.
# Source: ORION (Fu et al., arXiv 2503.19755); images of 640x640, its mean and std. Its own training crops the upper
#   part of each image away before; here the whole image is resized.
# Files: docs/orion.md says where they come from. Other places by environment variables:
#   B2D_ROOT (data), ORION_CKPT (ckpts/Orion.pth), ORION_PLAN, ORION_SIZE (640).
_base_ = ['../_base_/default_runtime.py']
default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer')
data_root = '{{$B2D_ROOT:data}}/'
checkpoint = '{{$ORION_CKPT:ckpts/Orion.pth}}'
size = int('{{$ORION_SIZE:640}}')
data_preprocessor = dict(
    type='kdplugin.RigPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=16,
)
meta_keys = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'camera', 'lidar2img', 'gt_boxes_3d',
    'gt_labels_3d', 'input_ids', 'vlm_labels', 'vlm_attn_mask',
)  # fmt: skip
view_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(size, size), keep_ratio=False),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
train_pipeline = [
    # The backbone's training needs no language: without a tokenizer the labels are -100.
    dict(type='kdplugin.LoadAnnotationVQA', data_root=data_root + 'chat-B2D/train', tokenizer=None),
    dict(type='kdplugin.PerView', transforms=view_pipeline, shared=('input_ids', 'vlm_labels', 'vlm_attn_mask')),
]
train_dataloader = dict(
    batch_size=1,  # rigs: six images
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='kdplugin.Bench2DriveDataset',
        data_root=data_root,
        ann_file='infos/b2d_infos_train.pkl',
        data_prefix=dict(img='bench2drive'),
        layout='rig',
        interval=5,  # two frames a second of ten
        pipeline=train_pipeline,
    ),
)
val_cfg = test_cfg = None  # what the backbone is worth is measured in ORION, after tools/export_student.py

teacher_model = dict(
    type='kdplugin.OrionStudent',
    frozen=(),
    backbone=dict(type='kdplugin.EVAViT', drop_path_rate=0.0),
    sources=dict(backbone='img_backbone'),
    # Parts of ORION that stay in ORION. The real file may have others: the error names them, with their sizes.
    ignore_prefixes=[
        'pts_bbox_head', 'map_head', 'lm_head', 'query_pos', 'time_embedding', 'ego_pose_pe', 'position_encoder',
    ],
    data_preprocessor=data_preprocessor,
)  # fmt: skip

epochs = 6
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='kdplugin.TrainedParameters',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min=1e-6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)

# Blocks whose maps and attention are compared: global ones, which see the whole image.
features = dict(
    student_layout='NHWC', teacher_layout='NHWC', loss=dict(type='kdplugin.CosineLoss'), weight=0.125
)  # four of them: 0.5
