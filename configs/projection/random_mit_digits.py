# The projection benchmark's student from random weights: four layers of 64 in the second stage, half the teacher's in
#   both.
# Train: python tools/train.py configs/projection/random_mit_digits.py
# Expected: docs/results/projection_start.json, start 'random', by tools/benchmarks/projection_start.py
_base_ = ['./mit_digits.py']
model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(num_layers=(1, 4), num_heads=(1, 2), **_base_.backbone),
    decode_head=dict(in_channels=64, **_base_.decode_head),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
