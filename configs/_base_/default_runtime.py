# Runtime of the quickstart: one log line in 50 iterations, the best and the newest checkpoint kept.
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
# Distillation terms are averaged over the logging window like the losses.
log_processor = dict(by_epoch=False, mean_pattern=r'.*(loss|time|data_time|grad_norm|kd_).*')
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
