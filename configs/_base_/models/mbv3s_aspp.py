# MobileNetV3-Small with a light ASPP decoder: 2,517,365 parameters at 21 classes, logits at stride 4.
# At an output stride of 16 a 512x512 crop gives ASPP a 32x32 map, on which rates 6 and 12 still sample the
# image; on smaller images lower the rates with the map.
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='kdplugin.MobileNetV3Small', output_stride=16, out_indices=(1, 3, 12)),
    decode_head=dict(
        type='kdplugin.LightASPPHead',
        in_channels=(16, 24, 576),
        in_index=(0, 1, 2),
        channels=128,
        dilations=(1, 6, 12),
        skip_channels=32,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
