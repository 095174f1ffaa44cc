# Detection check, student without a teacher: GFL on MobileNetV2 x0.35 with ImageNet weights.
_base_ = ['./bccd.py']
model = dict(
    type='GFL',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mmseg.MobileNetV2',
        widen_factor=0.35,
        out_indices=(2, 4, 6),
        norm_eval=True,
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 112], out_channels=48, num_outs=3, start_level=0),
    bbox_head=dict(in_channels=48, feat_channels=48, stacked_convs=1, **_base_.bbox_head),
    train_cfg=_base_.model_train_cfg,
    test_cfg=_base_.model_test_cfg,
)
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source='{{$REAL_DATA:../shared/data}}/weights/mobilenet_v2_0.35_imagenet_mm.safetensors',
        target='backbone',
        min_coverage=1.0,
    )
]
