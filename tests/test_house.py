"""The plan of the house, checked on the syntax trees alone: which room may import which, names, sizes, tests."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'kdplugin'
SOURCES = sorted(PACKAGE.rglob('*.py'))
HOSTS = {'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmrazor'}

GROUND = {'errors', 'module_paths'}
STORES = {*GROUND, 'weights', 'pruning', 'checkpoint_schemes', 'registry', 'losses'}
ENGINE = {'models', 'datasets', 'distill'}
MAY_IMPORT = {
    'errors': set(),
    'elastic': set(),
    'module_paths': {'errors'},
    'package_files': GROUND,
    'config_files': {*GROUND, 'registry'},
    '__main__': {*GROUND, 'package_files', 'reports'},
    'model_index': GROUND,
    'weights': GROUND,
    'pruning': {*GROUND, 'weights'},
    'checkpoint_schemes': {*GROUND, 'weights'},
    'registry': {'checkpoint_schemes'},
    'losses': {*GROUND, 'registry'},
    **dict.fromkeys(ENGINE, STORES),
    # a step of diffusion is made with the generator's own flow and text encoder
    'distill': {*STORES, 'models', 'config_files'},
    'reports': STORES | ENGINE,
    'hooks': {*STORES, *ENGINE, 'reports'},
    'preflight': {*STORES, *ENGINE, 'reports', 'config_files'},
    'launch': {*STORES, *ENGINE, 'reports', 'hooks', 'preflight', 'config_files'},
    'quickstart': {*STORES, *ENGINE, 'reports', 'hooks', 'preflight', 'launch', 'package_files'},
    'production': {*STORES, *ENGINE, 'reports', 'hooks', 'preflight', 'launch', 'package_files'},
    'migration': {*STORES, *ENGINE, 'reports', 'config_files'},
    'pruning_run': {*STORES, *ENGINE, 'reports', 'launch'},
    'visualization': {*STORES, *ENGINE, 'reports', 'hooks', 'preflight', 'launch'},
    'weight_targets': {*GROUND, 'weights', 'reports', 'launch'},
}
"""What each room may import besides itself."""

WEIGHTS = (
    {'naming'},
    {'reading'},
    {'plan', 'units'},
    {'steps'},
    {'plan_shapes'},
    {'layouts', 'mapping', 'reports'},
    {'projection'},
    {'apply', 'export', 'renamer'},
    {'mapper'},
    {'planning'},
    {'presets', 'project'},
)
"""The floors of the weights room, from the ground up: what stands on one imports floors below it alone."""

OPTIONAL_HOST = '_mmengine_globals'
"""The function of weights/reading/io.py that learns what mmengine's checkpoints hold, where mmengine is installed."""

NEEDS_NO_TEST = {'__init__', 'errors', 'registry', 'base'}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a tree imports, also inside functions; a relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = '.' * node.level + (node.module or '')
            if module == 'kdplugin':
                yield from (f'kdplugin.{alias.name}' for alias in node.names)
            else:
                yield module


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize('path', SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    imported = list(imports(parse(path)))
    assert not [name for name in imported if name.startswith('.')], 'Write imports from kdplugin, not from a dot.'
    ours = {name.split('.')[1] for name in imported if name.startswith('kdplugin.')} - {room}
    if room != '__init__':
        assert room in MAY_IMPORT, f'{room} is not in the plan: say in MAY_IMPORT what it may import'
    assert ours <= MAY_IMPORT.get(room, set())


def test_the_plan_has_no_circle() -> None:
    left = {room: set(others) for room, others in MAY_IMPORT.items()}
    while left:
        free = {room for room, others in left.items() if not others & left.keys()}
        assert free, f'circle among {sorted(left)}'
        left = {room: others for room, others in left.items() if room not in free}


@pytest.mark.parametrize('path', sorted((PACKAGE / 'weights').rglob('*.py')), ids=name_of)
def test_the_weights_room_is_built_from_the_ground_up(path: Path) -> None:
    floors = {room: floor for floor, rooms in enumerate(WEIGHTS) for room in rooms}
    room = path.relative_to(PACKAGE / 'weights').parts[0].removesuffix('.py')
    names = [name.split('.') for name in imports(parse(path)) if name.startswith('kdplugin.weights.')]
    others = {parts[2] for parts in names} - {room}
    assert {other for other in others if floors[other] >= floors.get(room, -1)} == set()


def test_no_file_imports_one_that_imports_it() -> None:
    """Circles within a room, also those that hide in functions or behind TYPE_CHECKING."""
    names = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path for path in SOURCES}
    left = {name: set(imports(parse(path))) & names.keys() - {name} for name, path in names.items()}
    while left:
        free = {name for name, others in left.items() if not others & left.keys()}
        assert free, f'circle among {sorted(left)}'
        left = {name: others for name, others in left.items() if name not in free}


@pytest.mark.parametrize('path', [p for p in SOURCES if room_of(p) in ('weights', 'pruning')], ids=name_of)
def test_weights_and_pruning_do_not_need_the_hosts(path: Path) -> None:
    tree = parse(path)
    optional = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == OPTIONAL_HOST]
    allowed = [name for node in optional for name in imports(node) if name.startswith('mmengine.')]
    assert [name for name in imports(tree) if name.split('.')[0] in HOSTS] == allowed


@pytest.mark.parametrize('path', [p for p in SOURCES if room_of(p) == 'losses'], ids=name_of)
def test_classes_of_losses_end_in_loss(path: Path) -> None:
    classes = [node.name for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if not name.endswith('Loss')] == []


def test_files_have_at_most_300_lines() -> None:
    files = [path for folder in ('kdplugin', 'tools', 'configs') for path in (ROOT / folder).rglob('*.py')]
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_test_files_have_names_of_their_own() -> None:
    """They are imported by name alone, so two of one name would hide each other."""
    names = Counter(path.name for path in (ROOT / 'tests').rglob('*.py') if path.name != 'conftest.py')
    assert {name: count for name, count in names.items() if count > 1} == {}


def has_tests(path: Path) -> bool:
    """Tell whether a file tests/<same folders>/test_<name>.py exists, or test_<something>_<name>.py."""
    folder = ROOT / 'tests' / path.parent.relative_to(PACKAGE)
    return any(folder.glob(f'test_{path.stem}.py')) or any(folder.glob(f'test_*_{path.stem}.py'))


def test_every_file_has_its_tests() -> None:
    assert [name_of(path) for path in SOURCES if path.stem not in NEEDS_NO_TEST and not has_tests(path)] == []
