"""What a plan did, or would do: by tensor, by number of tensors and by number of parameters.

Parameters here are the values of all tensors of the target, buffers among them: a state dict does not tell them
apart. The denominators are the whole target. What keeps its own initialisation is never counted as loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import KINDS, Entry, ProjectionPlan

NAMED = 5
"""How many tensors an error names."""


@dataclass(frozen=True)
class Row:
    """One target tensor.

    Args:
        source_shapes: in the order of ``sources``, None where not known.
        error: relative Frobenius error; 0 for a copy, None where nothing was loaded or nobody measured.
    """

    target: str
    shape: tuple[int, ...]
    parameters: int
    kind: str
    sources: tuple[str, ...]
    source_shapes: tuple[tuple[int, ...] | None, ...]
    operation: str
    error: float | None
    score: float
    margin: float
    reason: str


@dataclass(frozen=True)
class PlanReport:
    """A plan in numbers.

    Args:
        plan: what becomes of each tensor.
        errors: ||prepared - source|| / ||source|| in the Frobenius norm by target name, where measured.
        source_shapes: shapes of the source's tensors by name.

    Example:
        >>> from kdplugin.weights.plan import Entry, Piece
        >>> entries = (Entry('w', (2, 3), 'exact', (Piece('w'),)), Entry('b', (2,), 'random', reason='no bias'))
        >>> PlanReport(ProjectionPlan('a.pth', 'student', entries)).coverage
        {'tensors': 0.5, 'parameters': 0.75}
    """

    plan: ProjectionPlan
    errors: Mapping[str, float] = field(default_factory=dict)
    source_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """One row for each target tensor, in the target's order."""
        return [self._row(entry) for entry in self.plan.entries]

    def _row(self, entry: Entry) -> Row:
        error = self.errors.get(entry.target, 0.0 if entry.kind in ('exact', 'renamed') else math.nan)
        shapes = [self.source_shapes.get(name) for name in entry.sources]
        return Row(
            target=entry.target,
            shape=entry.shape,
            parameters=math.prod(entry.shape),
            kind=entry.kind,
            sources=entry.sources,
            source_shapes=tuple(None if shape is None else tuple(shape) for shape in shapes),
            operation=entry.operation,
            error=float(error) if entry.loads and math.isfinite(error) else None,
            score=entry.score,
            margin=entry.margin,
            reason=entry.reason,
        )

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        """``{kind: {'tensors': n, 'parameters': n}}`` for every kind, and for 'loaded' and 'all'."""
        totals = {kind: {'tensors': 0, 'parameters': 0} for kind in (*KINDS, 'loaded', 'all')}
        for entry in self.plan.entries:
            for name in (entry.kind, 'all', *(['loaded'] if entry.loads else [])):
                totals[name]['tensors'] += 1
                totals[name]['parameters'] += math.prod(entry.shape)
        return totals

    @property
    def coverage(self) -> dict[str, float]:
        """Which share of the target is loaded, by tensors and by parameters: 0 to 1."""
        totals = self.totals
        return {unit: totals['loaded'][unit] / max(totals['all'][unit], 1) for unit in ('tensors', 'parameters')}

    def require(self, min_coverage: float) -> None:
        """Check the coverage by parameters.

        Raises:
            CheckpointError: it is below ``min_coverage``, or nothing is loaded at all; names the largest tensors that
                are missing and why.
        """
        coverage = self.coverage['parameters']
        if coverage >= min_coverage and self.totals['loaded']['tensors']:
            return
        missing = sorted((entry for entry in self.plan.entries if not entry.loads), key=lambda e: -math.prod(e.shape))
        named = [f'{e.target} {e.shape}, {e.kind}: {e.reason or "no reason given"}' for e in missing[:NAMED]]
        more = '; ...' if len(missing) > NAMED else ''
        raise CheckpointError(
            f'Expected {self.plan.source} to give {percent(min_coverage)} of the parameters of {self.plan.target} but '
            f'got {percent(coverage)}; {len(missing)} of {len(self.plan)} tensors are not loaded '
            f'({"; ".join(named)}{more}). Use a nearer source, give its prefix, edit the plan or lower min_coverage.'
        )

    def to_json(self) -> str:
        """Return everything as JSON text."""
        content = {
            'source': self.plan.source,
            'target': self.plan.target,
            'settings': self.plan.settings,
            'coverage': self.coverage,
            'totals': self.totals,
            'tensors': [asdict(row) for row in self.rows],
            'unused': self.plan.unused,
            'notes': list(self.plan.notes),
        }
        return json.dumps(content, indent=1)


def percent(share: float) -> str:
    """Write a share so that what is not all never reads 100 %."""
    return f'{math.floor(share * 1000 + 1e-9) / 10:.1f} %'
