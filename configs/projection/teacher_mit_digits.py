# The projection benchmark's teacher: eight layers of 128 in the second stage, from random weights.
# Train: python tools/train.py configs/projection/teacher_mit_digits.py
_base_ = ['./mit_digits.py']
iters = 600
peak_lr = 1.5e-3
optim_wrapper = dict(optimizer=dict(lr=peak_lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=peak_lr, total_steps=iters, pct_start=0.1, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=iters // 2)
default_hooks = dict(checkpoint=dict(interval=iters // 2))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(num_layers=(1, 8), num_heads=(1, 4), **_base_.backbone),
    decode_head=dict(in_channels=128, **_base_.decode_head),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
