# Segmentation check, teacher: light ASPP on MobileNetV2 x1.0 with ImageNet weights.
# Its BatchNorm is folded into the convolutions (scale 1, mean 0), so statistics stay as they are: norm_eval.
_base_ = ['./dubai.py']
iters = 400
param_scheduler = [
    dict(type='OneCycleLR', eta_max=_base_.peak_lr, total_steps=iters, pct_start=0.2, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='MobileNetV2',
        widen_factor=1.0,
        strides=_base_.strides,
        dilations=_base_.dilations,
        out_indices=(1, 2, 6),
        norm_eval=True,
    ),
    decode_head=dict(in_channels=(24, 32, 320), channels=128, skip_channels=32, **_base_.decode_head),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source='{{$REAL_DATA:../shared/data}}/weights/mobilenet_v2_1.0_imagenet_mm.safetensors',
        target='backbone',
        min_coverage=1.0,
    )
]
