# What teacher, baseline and KD of the quickstart share: the scenes and how images enter a network.
_base_ = [
    '../_base_/datasets/digit_scenes_seg.py',
    '../_base_/schedules/digits.py',
    '../_base_/default_runtime.py',
]
# Arguments of tools/make_digit_scenes.py; `make demo` draws them.
digit_scenes = dict(
    train=1000, val=200, size=96, seed=0, digits=(3, 5), digit_size=(26, 40), contrast=(0.45, 0.9), texture=(0.01, 0.05)
)
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(96, 96),
)
# Five pixels in six are background. With a weight of 0.05 a short run learns the digits; with 0.2 it needs
# twice as many steps.
loss_decode = dict(type='CrossEntropyLoss', class_weight=[0.05] + [1.0] * 10)
val_dataloader = dict(batch_size=25)
test_dataloader = dict(batch_size=25)
