# Wan 2.2 T2V-A14B (two experts of 14.3 B parameters) to WanLiteStudent 1024 x 16: text to image at 512 x 512 pixels.
# Source: Wan Team, Wan: Open and Advanced Large-Scale Video Generative Models (arXiv 2503.20314); weights:
#   Wan-AI/Wan2.2-T2V-A14B-Diffusers. Start: the low-noise expert's weights, projected; it makes the details.
#   total = |v_student - v_teacher|^2 + 0.1 (1 - cos) after two depths, on the teacher's own paths from pure noise.
# Cost: two experts in bfloat16 are 57 GB. A GPU of 80 GB holds both; with offload='cpu' one of 29 GB is there at a time
#   and main memory needs 57 GB. The text encoder (11 GB) is asked once and let go. docs/wan.md has the estimate.
# Train: hf download Wan-AI/Wan2.2-T2V-A14B-Diffusers --local-dir weights/Wan2.2-T2V-A14B-Diffusers
#   tools/dist_train.sh configs/wan/wan-lite_1024x16_wan22-a14b.py 8 --amp
# Expected: not measured; nobody has trained it yet. python tools/production_test.py --teacher ... checks a first step.
_base_ = ['./wan-lite_tiny.py']

teacher = 'weights/Wan2.2-T2V-A14B-Diffusers'
iters = 100_000

model = dict(
    _delete_=True,
    type='kdplugin.DiffusionDistiller',
    student=dict(type='kdplugin.WanLiteStudent', hidden_size=1024, depth=16, num_heads=16, rope_head_dim=128),
    teacher=dict(path=teacher, dtype='bfloat16', offload='none', guidance=dict(high=4.0, low=3.0)),
    text_encoder=dict(cache='work_dirs/wan22_text', max_length=512, dtype='bfloat16'),
    flow=dict(size=(64, 64), steps=40, ode_steps=4),
    drop_prompt=0.0,  # the teacher's guidance is learnt, so the student needs none
    pairs=dict(
        middle=dict(student_tap='blocks.7', teacher_tap='blocks.18', loss=dict(type='kdplugin.CosineLoss'), weight=0.1),
        last=dict(student_tap='blocks.15', teacher_tap='blocks.39', loss=dict(type='kdplugin.CosineLoss'), weight=0.1),
    ),
)
train_dataloader = dict(batch_size=4, num_workers=2, persistent_workers=True)
train_cfg = dict(max_iters=iters)
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=1000, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=1000, end=iters, eta_min=1e-6, by_epoch=False),
]
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source=teacher,
        subfolder='transformer_2',
        target='',
        heads=dict(source=40, target=16),
        min_coverage=1.0,
    ),
    dict(type='EMAHook', momentum=2e-4, update_buffers=True, priority='NORMAL'),
    dict(type='kdplugin.SavePretrainedHook'),
]
default_hooks = dict(checkpoint=dict(interval=1000, max_keep_ckpts=2))
randomness = dict(seed=0, diff_rank_seed=True)
