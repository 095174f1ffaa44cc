# What teacher and students of the projection benchmark share: the quickstart's scenes, 300 steps, and all of a small
#   mix transformer but the width and depth of its second stage (a map of 12x12).
# Source: Xie et al., SegFormer (arXiv 2105.15203): two of the four stages of MixVisionTransformer. In this time a plain
#   vision transformer learns no digits from 1,000 scenes (12 mIoU); the 3x3 convolutions make the difference.
_base_ = ['../quickstart/digits.py']
iters = 300
peak_lr = 2e-3
optim_wrapper = dict(optimizer=dict(lr=peak_lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=peak_lr, total_steps=iters, pct_start=0.1, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
default_hooks = dict(checkpoint=dict(interval=iters, save_best=None))
backbone = dict(
    type='MixVisionTransformer',
    embed_dims=32,  # by head: a stage is this times its heads wide
    num_stages=2,
    patch_sizes=(7, 3),
    strides=(4, 2),
    sr_ratios=(4, 1),
    out_indices=(0, 1),
    mlp_ratio=4,
    drop_path_rate=0.0,
)
decode_head = dict(
    type='FCNHead',
    in_index=1,
    channels=64,
    num_convs=1,
    kernel_size=1,
    concat_input=False,
    dropout_ratio=0,
    num_classes=11,
    norm_cfg=dict(type='GN', num_groups=8),  # no running statistics: a loss before the first step means something
    align_corners=False,
    loss_decode=_base_.loss_decode,
)
