# An image student that starts from a tiny video transformer's weights and learns its velocities: minutes on a laptop.
# Teacher: python tools/make_wan_tiny.py writes it; two experts of 4 blocks, 128 wide, that know soft discs on slopes.
# Source: Wan Team, Wan: Open and Advanced Large-Scale Video Generative Models (arXiv 2503.20314); flow matching,
#   Lipman et al. (arXiv 2210.02747). total = |v_student - v_teacher|^2 + 0.1 |f_student - f_teacher|^2 after the last
#   block, on the teacher's own paths from pure noise. The embedded prompts are all there is: no images, no download.
# Train: python tools/train.py configs/wan/wan-lite_tiny.py
# Expected: docs/results/wan_start.json, measured by tools/benchmarks/wan_start.py
default_scope = 'mmengine'
teacher = 'work_dirs/wan_tiny'
iters = 500

model = dict(
    type='kdplugin.DiffusionDistiller',
    student=dict(
        type='kdplugin.WanLiteStudent',
        hidden_size=96,
        depth=2,
        num_heads=3,
        ffn_size=192,
        text_dim=32,
        freq_dim=32,
        rope_head_dim=32,
    ),
    teacher=dict(path=teacher, dtype='float32'),
    text_encoder=dict(cache='work_dirs/wan_tiny_text', max_length=24, dtype='float32'),
    flow=dict(size=(8, 8), steps=20, ode_steps=3),
    pairs=dict(
        last=dict(student_tap='blocks.1', teacher_tap='blocks.3', loss=dict(type='kdplugin.L2Loss'), weight=0.1),
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='kdplugin.PromptDataset'),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.0), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [dict(type='OneCycleLR', eta_max=2e-3, total_steps=iters, pct_start=0.1, by_epoch=False)]
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source=teacher,
        subfolder='transformer_2',
        target='',
        heads=dict(source=4, target=3),
        min_coverage=1.0,
    ),
    dict(type='kdplugin.SavePretrainedHook'),
]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_processor = dict(by_epoch=False, mean_pattern=r'.*(loss|time|data_time|grad_norm|kd_).*')
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
