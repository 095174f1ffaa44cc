# The quickstart's student without a teacher: MobileNetV3-Small up to its 48-channel stage, and the light ASPP decoder.
# It has labels for the first 400 of the 1,000 scenes: its recipe is short of data, not of steps.
# Train: python tools/train.py configs/quickstart/baseline_digits.py
_base_ = ['./digits.py']
train_dataloader = dict(dataset=dict(indices=400))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    # torchvision's BatchNorm momentum of 0.01 lags behind in a run of some hundred steps from random weights.
    backbone=dict(type='kdplugin.MobileNetV3Small', output_stride=16, out_indices=(1, 3, 8), bn_momentum=0.1),
    decode_head=dict(
        type='kdplugin.LightASPPHead',
        in_channels=(16, 24, 48),
        in_index=(0, 1, 2),
        channels=64,
        skip_channels=24,
        dilations=(1, 2, 3),  # the map under ASPP is 6x6
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=_base_.loss_decode,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
