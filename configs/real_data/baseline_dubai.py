# Segmentation check, student without a teacher: light ASPP on MobileNetV2 x0.35 with ImageNet weights.
_base_ = ['./dubai.py']
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='MobileNetV2',
        widen_factor=0.35,
        strides=_base_.strides,
        dilations=_base_.dilations,
        out_indices=(1, 2, 6),
        norm_eval=True,
    ),
    decode_head=dict(in_channels=(8, 16, 112), channels=32, skip_channels=16, **_base_.decode_head),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
custom_hooks = [
    dict(
        type='kdplugin.WeightProjectionHook',
        source='{{$REAL_DATA:../shared/data}}/weights/mobilenet_v2_0.35_imagenet_mm.safetensors',
        target='backbone',
        min_coverage=1.0,
    )
]
