"""Children of mmengine's root registries with scope 'kdplugin', and what importing kdplugin changes in mmengine.

mmengine imports ``kdplugin.registry`` by itself when it meets a type with the prefix ``kdplugin.``, so a config
needs no ``custom_imports``.
"""

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODEL_WRAPPERS as ROOT_MODEL_WRAPPERS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

from kdplugin import checkpoint_schemes

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='kdplugin',
    locations=['kdplugin.losses', 'kdplugin.models', 'kdplugin.distill'],
)
MODEL_WRAPPERS = Registry(
    'model_wrapper',
    parent=ROOT_MODEL_WRAPPERS,
    scope='kdplugin',
    locations=['kdplugin.hooks.cpu_ddp', 'kdplugin.hooks.fsdp'],
)
STRATEGIES = Registry('strategy', parent=ROOT_STRATEGIES, scope='kdplugin', locations=['kdplugin.hooks.fsdp'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=ROOT_OPTIM_WRAPPERS, scope='kdplugin', locations=['kdplugin.hooks.cpu_amp']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optim_wrapper_constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='kdplugin',
    locations=['kdplugin.hooks.trained_parameters'],
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='kdplugin', locations=['kdplugin.hooks'])
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='kdplugin', locations=['kdplugin.datasets'])
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='kdplugin', locations=['kdplugin.datasets'])

# `_base_ = ['mmseg::...']` looks for a distribution named mmsegmentation, which the OneDL line does not have;
# by its import name the package is found on both stacks.
MODULE2PACKAGE['mmseg'] = 'mmseg'
# `kdplugin::...` likewise, by a module: mmengine 0.10.7 takes an editable distribution to be in site-packages.
MODULE2PACKAGE['kdplugin'] = 'kdplugin.registry'
checkpoint_schemes.install()
