# Detection check, teacher: GFL on MobileNetV2 x1.0 with ImageNet weights.
# Its BatchNorm is folded into the convolutions (scale 1, mean 0), so statistics stay as they are: norm_eval.
_base_ = ['./bccd.py']
iters = 400
param_scheduler = [
    dict(type='OneCycleLR', eta_max=_base_.peak_lr, total_steps=iters, pct_start=0.2, by_epoch=False),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
model = dict(
    type='GFL',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mmseg.MobileNetV2',
        widen_factor=1.0,
        out_indices=(2, 4, 6),
        norm_eval=True,
    ),
    neck=dict(type='FPN', in_channels=[32, 96, 320], out_channels=96, num_outs=3, start_level=0),
    bbox_head=dict(in_channels=96, feat_channels=96, stacked_convs=2, **_base_.bbox_head),
    train_cfg=_base_.model_train_cfg,
    test_cfg=_base_.model_test_cfg,
)
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source='{{$REAL_DATA:../shared/data}}/weights/mobilenet_v2_1.0_imagenet_mm.safetensors',
        target='backbone',
        min_coverage=1.0,
    )
]
