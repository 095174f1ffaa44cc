"""A detector whose backbone alone is trained, between frozen parts of its teacher.

B rig, N image, V view, H W pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor

from kdplugin.checkpoint_schemes import local_file
from kdplugin.errors import ConfigError
from kdplugin.models.detectors.parts import Split, load_parts, split_checkpoint
from kdplugin.models.detectors.rigs import fold_views
from kdplugin.module_paths import match_modules
from kdplugin.registry import MODELS
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of

BACKBONE = 'backbone'


@MODELS.register_module()
class OrionStudent(BaseDetector):
    """A backbone that learns, and a neck and heads of the teacher that stay as they are.

    The heads stand beside the backbone under their own names, as in any mmdet detector, so a teacher of mmdet and this
    student agree in the names of their tensors. Frozen parts are in eval mode throughout and get no gradient. They are
    loaded from ``checkpoint`` when the Runner initialises the model; the backbone gets its weights from
    ``kdplugin.WeightProjectionHook``, by a pruning plan or whole.

    Args:
        backbone: config of what is trained, such as ``kdplugin.EVAViTStudent``.
        neck: config, or None.
        heads: by name, configs of any registered type with mmdet's ``forward(features)``, ``loss(features, samples)``
            and ``predict(features, samples, rescale=)``: ``dict(bbox_head=dict(type='FCOSHead', ...))``. Several
            heads have their names before their losses, and all but the first predict as ``pred_<name>``.
        checkpoint: of the teacher, for the parts that are frozen.
        sources: prefix of a part in the checkpoint where it is not the part's name: ``dict(backbone='img_backbone')``.
        ignore_prefixes: of the checkpoint's parts that are not built here.
        frozen: paths or shell patterns of what does not move; by default all but the backbone, () for nothing.
        supervised: False leaves the heads' losses out, for images without labels; distillation is then all there is.
        data_preprocessor, init_cfg: see mmdet.

    Raises:
        ConfigError: a head's name cannot be an attribute, or frozen parts have no checkpoint.
        CheckpointError: at initialisation, if the checkpoint does not fit.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        heads: Mapping[str, Mapping[str, Any]] | None = None,
        checkpoint: str | None = None,
        sources: Mapping[str, str] | None = None,
        ignore_prefixes: Sequence[str] = (),
        frozen: Sequence[str] | None = None,
        supervised: bool = True,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = ROOT_MODELS.build(backbone)
        if neck is not None:
            self.neck = ROOT_MODELS.build(neck)
        self.head_names = tuple(heads or ())
        for name, head in (heads or {}).items():
            if not name.isidentifier() or hasattr(self, name):
                raise ConfigError(
                    f'Expected names of heads that are free, such as bbox_head, but got {name!r}. Rename the head.'
                )
            setattr(self, name, ROOT_MODELS.build(head))
        self.checkpoint, self.ignore_prefixes = checkpoint, tuple(ignore_prefixes)
        self.sources = {part: part for part in self.parts} | dict(sources or {})
        self.supervised = supervised
        self.frozen = self._frozen_names(frozen)
        self._check()
        self._freeze()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what the model is built of."""
        return (BACKBONE, *(['neck'] if self.with_neck else []), *self.head_names)

    def _frozen_names(self, patterns: Sequence[str] | None) -> tuple[str, ...]:
        if patterns is None:
            return self.parts[1:]
        return tuple(match_modules(self, patterns, 'student'))

    def _check(self) -> None:
        unknown = sorted(self.sources.keys() - set(self.parts))
        if unknown:
            raise ConfigError(f'Expected sources of the parts {list(self.parts)} but got {unknown}. Correct them.')
        others = [name for name in self.frozen if name.split('.')[0] != BACKBONE]
        if others and not self.checkpoint:
            raise ConfigError(
                f'Expected a checkpoint for the frozen parts {others} but got none. A random part that never learns is '
                "of no use: write checkpoint='teacher.pth', or frozen=()."
            )

    def _freeze(self) -> None:
        modules, parameters = dict(self.named_modules()), dict(self.named_parameters())
        for name in self.frozen:
            (modules[name] if name in modules else parameters[name]).requires_grad_(False)

    def train(self, mode: bool = True) -> OrionStudent:
        super().train(mode)
        modules = dict(self.named_modules())
        for name in self.frozen:
            if name in modules:
                modules[name].eval()
        return self

    def init_weights(self) -> None:
        """Initialise as mmengine does, then load all parts but the backbone from the checkpoint, strictly."""
        super().init_weights()
        if self.checkpoint is None or len(self.parts) == 1:
            return
        path = local_file(self.checkpoint)
        weights = state_dict_of(read_checkpoint(path, mmap=True), str(path))
        split = self._split(weights, str(path), elsewhere=[BACKBONE])
        load_parts(self, split.tensors, self.parts[1:], str(path))
        lines = '\n  '.join(map(str, split.reports))
        print_log(f'{path}\n  {lines}', logger='current')

    def own_tensors(self, weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
        """Return a whole teacher's tensors under the names of this model, for one that teaches itself.

        Raises:
            CheckpointError: see ``split_checkpoint``.
        """
        return self._split(weights, name).tensors

    def _split(self, weights: Mapping[str, Tensor], name: str, elsewhere: Sequence[str] = ()) -> Split:
        parts = {part: self.sources[part] for part in self.parts}
        return split_checkpoint(weights, parts, self.ignore_prefixes, name, elsewhere)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Run mmdet's ``forward`` on images (N, 3, H, W), or on rigs (B, V, 3, H, W) as N = B V images."""
        images, samples = fold_views(inputs, data_samples)
        return super().forward(images, samples, mode)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the levels of the neck, or of the backbone where there is none."""
        features = self.backbone(batch_inputs)
        return tuple(self.neck(features) if self.with_neck else features)

    def loss(self, batch_inputs: Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """Return the heads' losses; none without heads, or where the images have no labels."""
        features = self.extract_feat(batch_inputs)
        if not self.supervised:
            self._run_heads(features)  # for taps in them
            return {}
        losses: dict[str, Any] = {}
        for name in self.head_names:
            own = getattr(self, name).loss(features, batch_data_samples)
            losses.update(own if len(self.head_names) == 1 else {f'{name}.{key}': own[key] for key in own})
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: Any, rescale: bool = True) -> Any:
        """Return the data samples with the first head's ``pred_instances``, and ``pred_<name>`` of others.

        Raises:
            ConfigError: there is no head.
        """
        if not self.head_names:
            raise ConfigError(
                'Expected a head that predicts but the student has a backbone alone. Add heads=dict(bbox_head=...), '
                'or leave out val_cfg and test_cfg.'
            )
        features = self.extract_feat(batch_inputs)
        first, *others = self.head_names
        found = getattr(self, first).predict(features, batch_data_samples, rescale=rescale)
        samples = self.add_pred_to_datasample(batch_data_samples, found)
        for name in others:
            predictions = getattr(self, name).predict(features, batch_data_samples, rescale=rescale)
            for sample, prediction in zip(samples, predictions, strict=True):
                sample.set_data({f'pred_{name}': prediction})
        return samples

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Any = None) -> tuple[Any, ...]:
        features = self.extract_feat(batch_inputs)
        return self._run_heads(features) or features

    def _run_heads(self, features: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return tuple(getattr(self, name)(features) for name in self.head_names)
