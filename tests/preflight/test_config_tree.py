from __future__ import annotations

import mmengine.registry as roots

from kdplugin.preflight.config_tree import typed_parts

CONFIG = dict(
    model=dict(
        type='kdplugin.Distiller',
        student=dict(type='GFL', _scope_='mmdet', backbone=dict(type='ResNet', init_cfg=dict(type='Pretrained'))),
        teacher=dict(model=dict(type='X')),
        pairs=dict(a=dict(loss=dict(type='Y'))),
    ),
    train_dataloader=dict(
        sampler=dict(type='S'),
        dataset=dict(type='D', pipeline=[dict(type='T'), dict(type='Albu', transforms=[dict(type='Foreign')])]),
    ),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD')),
    custom_hooks=[dict(type='H', switch_pipeline=[dict(type='U')])],
    helper=dict(type='nobody builds it'),
    train_cfg=None,
)


def test_every_typed_dict_is_found_with_its_registry_and_scope() -> None:
    parts = {part.path: part for part in typed_parts(CONFIG)}
    assert list(parts) == [
        'model', 'model.student', 'model.student.backbone', 'model.student.backbone.init_cfg', 'optim_wrapper',
        'optim_wrapper.optimizer', 'custom_hooks.0', 'custom_hooks.0.switch_pipeline.0', 'train_dataloader.sampler',
        'train_dataloader.dataset', 'train_dataloader.dataset.pipeline.0', 'train_dataloader.dataset.pipeline.1',
    ]  # fmt: skip
    assert parts['model.student.backbone.init_cfg'].registries == (roots.WEIGHT_INITIALIZERS,)
    assert parts['custom_hooks.0.switch_pipeline.0'].registries == (roots.TRANSFORMS,)
    assert parts['train_dataloader.sampler'].registries == (roots.DATA_SAMPLERS,)
    assert parts['optim_wrapper.optimizer'].registries == (roots.OPTIMIZERS,)
    assert parts['model.student.backbone'].scope == 'mmdet'
    assert parts['train_dataloader.dataset'].scope is None
    assert [path for path, part in parts.items() if not part.strict] == ['model.student.backbone']
