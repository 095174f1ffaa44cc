# The quickstart's teacher: ResNet-18 of half width with a feature pyramid on all 1,000 digit scenes, from random
#   weights.
# Train: python tools/train.py configs/quickstart/teacher_digits.py
_base_ = ['./digits.py']
iters = 800
peak_lr = 2e-3
optim_wrapper = dict(optimizer=dict(lr=peak_lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=peak_lr, total_steps=iters, pct_start=0.2, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=32,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 1),
        strides=(1, 2, 2, 2),
        norm_cfg=_base_.norm_cfg,
        style='pytorch',
    ),
    neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    decode_head=dict(
        type='FPNHead',
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=64,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        # It has the data and the steps to learn with a higher weight of the background, which makes it more precise.
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.2] + [1.0] * 10),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
