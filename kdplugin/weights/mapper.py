"""Map the tensors of one model to those of another, without rules written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.mapping.by_shape import by_shape
from kdplugin.weights.mapping.cautions import lone_norms, near_misses, with_cautions
from kdplugin.weights.mapping.convert import SCORE_WEIGHTS, Converter, resized_positions
from kdplugin.weights.mapping.execution import call, execution_order, largest_difference, untouched
from kdplugin.weights.mapping.joins import unknown_orders
from kdplugin.weights.mapping.matching import Matcher
from kdplugin.weights.mapping.patch_merging import merge_order
from kdplugin.weights.mapping.tree import Node
from kdplugin.weights.mapping.values import arranged, readable, value_anchors
from kdplugin.weights.plan import Entry, ProjectionPlan
from kdplugin.weights.projection.layers import choose_layers, weight_similarity
from kdplugin.weights.reading.io import write_text
from kdplugin.weights.reading.source import MemorySource, TensorSource, open_source
from kdplugin.weights.reading.unwrap import plain_names, tensors_of
from kdplugin.weights.reports.mapping_report import mapping_report, print_mapping
from kdplugin.weights.units import Unit, build_units, is_definition_order

STRATEGIES = ('best_match', 'conservative', 'shape_only')
CONSERVATIVE = 0.75
FILE_ORDER = 'the order of its tensors stands in for the order of execution'


class WeightMapper:
    """Suggest which tensor of a source belongs to which of a target.

    The interface is that of lit-wsl's WeightMapper (https://github.com/twsl/lit-wsl); the method is
    ``kdplugin.weights.mapping.matching``. Beyond one-to-one names, ``plan`` holds splits, fusions, transpositions and
    resized position embeddings.

    Args:
        source_module: where weights come from.
        target_module: where they go; both are left untouched.
        shape_tolerance: how much sizes may differ, relative to the larger; pairs that differ become kind 'projected'.
        dummy_input: a tensor, tuple or dict to run the modules on, to learn the order of execution.

    Example:
        >>> from torch import nn
        >>> mapper = WeightMapper(nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Sequential(nn.Linear(2, 3))))
        >>> mapper.suggest_mapping()
        {'0.weight': '0.0.weight', '0.bias': '0.0.bias'}
    """

    def __init__(
        self,
        source_module: nn.Module | None = None,
        target_module: nn.Module | None = None,
        shape_tolerance: float = 0.0,
        dummy_input: Any = None,
        *,
        source: TensorSource | None = None,
        layers: str | Sequence[int] = 'uniform',
        names: Mapping[str, str] | None = None,
    ) -> None:
        if (source_module is None) == (source is None) or target_module is None:
            raise ConfigError(
                'Expected a source and a target module for WeightMapper but got none of one. '
                'Give both, or use WeightMapper.from_checkpoint.'
            )
        if not 0 <= shape_tolerance < 1:
            raise ConfigError(f'Expected a shape_tolerance in [0, 1) but got {shape_tolerance}. Give for example 0.5.')
        self.source_module, self.target_module = source_module, target_module
        self.source = source or open_source(source_module, name=type(source_module).__name__)
        self._names = _names_given(source_module.state_dict()) if source_module is not None else names or {}
        self.target = MemorySource(target_module.state_dict(), type(target_module).__name__)
        self._read = (self.source.__getitem__, self.target.__getitem__)
        self.shape_tolerance = shape_tolerance
        self.layers = layers
        self.notes: list[str] = []
        self._orders = [self._observe(module, dummy_input) for module in (source_module, target_module)]
        self._plan: ProjectionPlan | None = None

    @classmethod
    def from_state_dict(
        cls,
        source_state_dict: Mapping[str, Tensor],
        target_module: nn.Module,
        shape_tolerance: float = 0.0,
        dummy_input: Any = None,
        **options: Any,
    ) -> WeightMapper:
        """Map from named tensors; their order stands in for the order of execution."""
        source, names = open_source(source_state_dict), _names_given(source_state_dict)
        return cls(None, target_module, shape_tolerance, dummy_input, source=source, names=names, **options)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        target_module: nn.Module,
        shape_tolerance: float = 0.0,
        dummy_input: Any = None,
        **options: Any,
    ) -> WeightMapper:
        """Map from a file, a folder or a hub id, as ``open_source`` reads it (Lightning files too)."""
        return cls(None, target_module, shape_tolerance, dummy_input, source=open_source(checkpoint_path), **options)

    def _observe(self, module: nn.Module | None, dummy_input: Any) -> dict[str, int] | None:
        if module is None or dummy_input is None:
            return None
        try:
            order = execution_order(module, dummy_input)
            layers = {name.rpartition('.')[0] for name, _ in module.named_parameters()}
            if 2 * len(layers & order.keys()) >= len(layers):
                return order
            why = f'ran on dummy_input without {len(layers - order.keys())} of its {len(layers)} layers'
            self.notes.append(f'{type(module).__name__} {why}: {FILE_ORDER}')
        except Exception as error:  # a forward pass can raise anything
            self.notes.append(
                f'{type(module).__name__} could not run on dummy_input ({type(error).__name__}: {str(error)[:200]}): '
                f'{FILE_ORDER}'
            )
        return None

    @property
    def plan(self) -> ProjectionPlan:
        """The full plan of the last ``suggest_mapping`` (made with its defaults if there was none)."""
        if self._plan is None:
            self.suggest_mapping()
        assert self._plan is not None  # noqa: S101 - suggest_mapping sets it
        return self._plan

    def suggest_mapping(
        self,
        threshold: float = 0.6,
        strategy: str = 'best_match',
        weights: Mapping[str, float] | None = None,
        verify: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Find the mapping and return its one-to-one part as {source name: target name}.

        Names are those of the dict or module that was given, with the ``module.`` before all of them that ``plan`` and
        ``open_source`` leave out; those of a file are without it.

        Args:
            threshold: pairs that score less are refused, 0 to 1.
            strategy: 'best_match'; 'conservative' raises the threshold to 0.75; 'shape_only' pairs equal shapes in
                order and ignores names.
            weights: of 'shape', 'name' and 'hierarchy' in the score.
            verify: ``dict(inputs=...)`` runs both models and puts the largest difference of their outputs into the
                plan's notes and settings.

        Raises:
            ConfigError: an unknown strategy or weight.
        """
        scales = self._check(threshold, strategy, weights)
        threshold = max(threshold, CONSERVATIVE) if strategy == 'conservative' else threshold
        shapes = self._shapes()
        entries, notes = self._best(shapes, threshold, scales) if strategy != 'shape_only' else (by_shape(*shapes), [])
        used = {name for entry in entries for name in entry.sources}
        self._plan = ProjectionPlan(
            source=self.source.name,
            target=self.target.name,
            entries=tuple(entries),
            unused={name: 'no target tensor takes it' for name in shapes[0] if name not in used},
            settings={'threshold': threshold, 'strategy': strategy, 'weights': dict(scales), 'layers': self.layers},
            notes=(*self.notes, *notes),
        )
        if verify is not None:
            self._record(self.verify(**verify))
        return self.get_mapping_dict()

    def _record(self, difference: float) -> None:
        plan = self.plan
        self._plan = replace(
            plan,
            settings={**plan.settings, 'max_output_difference': difference},
            notes=(*plan.notes, f'largest difference between the outputs of both models: {difference:.3g}'),
        )

    def _check(self, threshold: float, strategy: str, weights: Mapping[str, float] | None) -> Mapping[str, float]:
        if strategy not in STRATEGIES:
            raise ConfigError(
                f'Expected a strategy of {", ".join(STRATEGIES)} but got {strategy!r}.'
                f'{did_you_mean(strategy, STRATEGIES)} Name one of them.'
            )
        if not 0 <= threshold <= 1:
            raise ConfigError(f'Expected a threshold in [0, 1] but got {threshold}. Give for example 0.6.')
        unknown = [key for key in weights or {} if key not in SCORE_WEIGHTS]
        if unknown:
            raise ConfigError(
                f'Expected weights of {", ".join(SCORE_WEIGHTS)} but got {unknown[0]!r}.'
                f'{did_you_mean(unknown[0], SCORE_WEIGHTS)} Correct the key.'
            )
        scales = {**SCORE_WEIGHTS, **(weights or {})}
        if min(scales.values()) < 0 or not any(scales.values()):
            raise ConfigError(f'Expected weights of at least 0 and one above but got {scales}. Correct them.')
        return scales

    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        return (
            {name: self.source.shape(name) for name in self.source},
            {name: self.target.shape(name) for name in self.target},
        )

    def _best(
        self, shapes: tuple[dict[str, tuple[int, ...]], ...], threshold: float, scales: Mapping[str, float]
    ) -> tuple[list[Entry], list[str]]:
        """Match once in file order and, where a module could run, once in order of execution; keep the better."""
        orders: list[tuple[Any, Any]] = [(None, None)]
        if any(self._orders):
            orders.insert(0 if all(self._orders) else 1, (self._orders[0], self._orders[1]))
        results = [self._match(shapes, order, threshold, scales) for order in orders]
        return max(results, key=lambda result: round(sum(e.score for e in result[0] if e.loads), 2))

    def _match(
        self, shapes: Any, orders: tuple[Any, Any], threshold: float, scales: Mapping[str, float]
    ) -> tuple[list[Entry], list[str]]:
        source, target = (build_units(side, order) for side, order in zip(shapes, orders, strict=True))
        ordered = all(order or is_definition_order(side) for side, order in zip(shapes, orders, strict=True))
        matcher = Matcher(source, target, ordered=ordered, choose_layers=self._choose, **self._keys())
        anchors = []
        if all(map(readable, shapes)):
            anchors = value_anchors(source, target, self._read)
        matches = matcher.run(anchors)
        converter = Converter(source, target, shapes, matches, threshold, scales, self.shape_tolerance)
        entries = resized_positions(arranged(converter.entries(), self._read), shapes)
        entries, sides = unknown_orders(with_cautions(entries, shapes, self._merge_order), shapes), (source, target)
        return near_misses(lone_norms(entries, sides, matches), sides, matches), matcher.notes

    def _merge_order(self, side: int, norm: str) -> list[int] | None:
        module = (self.source_module, self.target_module)[side]
        return None if module is None else merge_order(module, norm)

    def _keys(self) -> dict[str, Callable[[Unit], Any]]:
        if not self.shape_tolerance:
            return {}
        return {'key': lambda unit: (len(unit.main.core), unit.main.core[2:])}

    def _choose(self, left: Sequence[Node], right: Sequence[Node]) -> Sequence[int]:
        if len(left) < len(right):
            return tuple(range(len(left)))
        alike = None
        if self.layers == 'similarity':
            numbers = [int(node.number or 0) for node in left]
            alike = weight_similarity(self.source, left[0].place.rpartition('.')[0])[numbers][:, numbers]
        return choose_layers(len(left), len(right), self.layers, alike)

    def get_unmatched(self) -> dict[str, list[str]]:
        """Return names without a partner as {'source': [...], 'target': [...]}."""
        missing = [entry.target for entry in self.plan.entries if not entry.loads]
        return {'source': list(map(self._given, self.plan.unused)), 'target': missing}

    def _given(self, name: str) -> str:
        return self._names.get(name, name)

    def get_mapping_dict(self) -> dict[str, str]:
        """Return the one-to-one mapping again, as a copy."""
        return {self._given(source): target for source, target in self.plan.mapping.items()}

    def get_mapping_with_scores(self) -> list[tuple[str, str, float]]:
        """Return (source, target, score) for each one-to-one pair, best first."""
        pairs = [(source, target, self.plan[target].score) for source, target in self.get_mapping_dict().items()]
        return sorted(pairs, key=lambda pair: -pair[2])

    def export_mapping_report(self, output_path: str | Path) -> None:
        """Write pairs, scores, coverage and what is left as JSON."""
        write_text(output_path, json.dumps(mapping_report(self.plan, self.source), indent=2) + '\n')

    def print_analysis(self, top_n: int = 10, show_unmatched: bool = True) -> None:
        """Print counts, the best pairs, notes, and what is left with the reason."""
        print_mapping(self.plan, self.source, top_n, show_unmatched)

    def verify(self, inputs: Any) -> float:
        """Return the largest difference between the outputs of the source and of the target with the mapped tensors.

        What the plan leaves out keeps the target's own values, which it has again afterwards.

        Raises:
            CheckpointError: there is no source module to run.
        """
        if self.source_module is None:
            raise CheckpointError('Expected a source module to verify against but got tensors alone. Give the module.')
        own = {name: value.clone() for name, value in self.target_module.state_dict().items()}
        try:
            self.target_module.load_state_dict({**own, **apply_plan(self.plan, self.source).tensors})
            with untouched(self.source_module), untouched(self.target_module):
                return largest_difference(call(self.source_module, inputs), call(self.target_module, inputs))
        finally:
            self.target_module.load_state_dict(own)


def _names_given(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Return {name that ``open_source`` gives: name here}."""
    return {} if isinstance(tensors, TensorSource) else plain_names(tensors_of(tensors, 'the source'), 'the source')
