from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.renamer import WeightRenamer


class Old(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(4, 6)
        self.layer2 = nn.Linear(6, 3)
        self.bn = nn.BatchNorm1d(3)


class New(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(3)


PARTS = dict(layer1='stem', layer2='head', bn='norm')


def old_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Old().state_dict())


def mapping() -> dict[str, str]:
    return {key: key.replace(key.split('.')[0], PARTS[key.split('.')[0]]) for key in old_weights()}


def plan_of(*entries: Entry) -> ProjectionPlan:
    return ProjectionPlan('old', 'new', entries)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(old_weights(), tmp_path / 'old.pth')
    return tmp_path / 'old.pth'


def test_a_renamed_file_loads_strictly_with_its_values(file: Path, tmp_path: Path) -> None:
    """The page of lit_wsl: rename, save, ``load_state_dict(torch.load(...))``."""
    renamer = WeightRenamer(file)
    renamer.rename_keys(mapping())
    renamer.save(tmp_path / 'new.pth')
    model = New()
    model.load_state_dict(torch.load(tmp_path / 'new.pth', weights_only=True))
    for old, new in mapping().items():
        assert torch.equal(model.state_dict()[new], old_weights()[old])


@pytest.mark.parametrize('wrap', [('state_dict',), ('model',), ('state_dict', 'model')])
def test_wrappers_and_other_entries_stay(tmp_path: Path, wrap: tuple[str, ...]) -> None:
    content: dict[str, Any] = old_weights()
    for key in reversed(wrap):
        content = {key: content, 'epoch': 3}
    torch.save({**content, 'meta': {'classes': ['cat']}}, tmp_path / 'old.pth')
    renamer = WeightRenamer(tmp_path / 'old.pth')
    assert renamer.list_keys() == list(old_weights())
    renamer.rename_keys(mapping())
    renamer.save(tmp_path / 'out' / 'new.pth')
    saved = torch.load(tmp_path / 'out' / 'new.pth', weights_only=True)
    assert saved['meta'] == {'classes': ['cat']}
    for key in wrap:
        assert saved['epoch'] == 3
        saved = saved[key]
    assert list(saved) == list(mapping().values())


def test_safetensors_in_and_out_keep_the_header(tmp_path: Path) -> None:
    save_file(old_weights(), tmp_path / 'old.safetensors', metadata={'format': 'pt', 'made': 'by hand'})
    renamer = WeightRenamer(tmp_path / 'old.safetensors')
    renamer.add_prefix('backbone.')
    renamer.save(tmp_path / 'new.safetensors')
    with safe_open(tmp_path / 'new.safetensors', 'pt') as saved:
        assert saved.metadata() == {'format': 'pt', 'made': 'by hand'}
        assert set(saved.keys()) == {f'backbone.{key}' for key in old_weights()}
        assert torch.equal(saved.get_tensor('backbone.bn.running_var'), old_weights()['bn.running_var'])


def test_a_pth_becomes_safetensors_with_the_weights_alone(tmp_path: Path) -> None:
    torch.save({'state_dict': old_weights(), 'optimizer': {'lr': 1.0}}, tmp_path / 'old.pth')
    WeightRenamer(tmp_path / 'old.pth').save(tmp_path / 'new.safetensors')
    with safe_open(tmp_path / 'new.safetensors', 'pt') as saved:
        assert set(saved.keys()) == set(old_weights())


def test_a_state_dict_in_memory_is_not_touched() -> None:
    given = old_weights()
    renamer = WeightRenamer(given)
    renamer.rename_keys(mapping())
    assert list(given) == list(old_weights())
    assert renamer.state_dict['stem.weight'] is given['layer1.weight']


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('LAYER1', ['layer1.weight', 'layer1.bias']),
        ('1.b', ['layer1.bias']),
        ('layer?.bias', ['layer1.bias', 'layer2.bias']),
        ('*.Bias', ['layer1.bias', 'layer2.bias', 'bn.bias']),
        ('layer?', []),
        (re.compile(r'^(bn|layer2)\.bias$'), ['layer2.bias', 'bn.bias']),
        (re.compile('LAYER1'), []),
    ],
)
def test_search_by_text_by_shell_pattern_and_by_regular_expression(pattern: Any, found: list[str]) -> None:
    assert WeightRenamer(old_weights()).search_keys(pattern) == found


def test_unmapped_tensors_stay_or_go() -> None:
    renamer = WeightRenamer(old_weights())
    renamer.rename_keys({'layer1.bias': 'b'})
    assert renamer.list_keys() == ['layer1.weight', 'b', *list(old_weights())[2:]]
    renamer.rename_keys({'b': 'c'}, preserve_unmapped=False)
    assert renamer.list_keys() == ['c']


def test_names_can_be_swapped() -> None:
    renamer = WeightRenamer({'a': torch.zeros(1), 'b': torch.ones(1)})
    renamer.rename_keys({'a': 'b', 'b': 'a'})
    assert renamer.state_dict == {'b': torch.zeros(1), 'a': torch.ones(1)}


def test_prefixes_are_replaced_removed_and_added() -> None:
    renamer = WeightRenamer(old_weights())
    renamer.add_prefix('model.')
    renamer.rename_with_prefix('model.layer1.', 'model.encoder.')
    renamer.remove_prefix('model.')
    assert renamer.list_keys() == [key.replace('layer1', 'encoder') for key in old_weights()]


def test_the_backup_is_the_oldest_state() -> None:
    renamer = WeightRenamer({'state_dict': old_weights(), 'meta': {}})
    renamer.rename_keys({'layer1.bias': 'x'}, backup=False)
    renamer.rename_keys({'x': 'y'})
    renamer.add_prefix('z.')
    renamer.restore_backup()
    assert 'x' in renamer.list_keys()
    assert renamer.weights['meta'] == {}
    renamer.add_prefix('z.')
    assert 'z.x' in renamer.list_keys()
    renamer.restore_backup()
    assert 'x' in renamer.list_keys()


def test_without_a_backup_there_is_nothing_to_restore() -> None:
    renamer = WeightRenamer(old_weights())
    renamer.rename_keys({'layer1.bias': 'x'}, backup=False)
    with pytest.raises(CheckpointError, match=r'Expected a backup but got none\. Rename with backup=True first\.'):
        renamer.restore_backup()


# DDP: the mapper reads such files without the prefix


def test_a_mapping_may_leave_out_the_prefix_that_all_names_carry() -> None:
    wrapped = {f'module.{key}': value for key, value in old_weights().items()}
    renamer = WeightRenamer(wrapped)
    assert renamer.list_keys()[0] == 'module.layer1.weight'
    renamer.rename_keys(mapping())
    New().load_state_dict(renamer.state_dict)


def test_a_prefix_that_some_names_carry_has_to_be_written() -> None:
    renamer = WeightRenamer({'module.a': torch.ones(1), 'b': torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"got 'a'\. Did you mean 'module\.a'\?"):
        renamer.rename_keys({'a': 'c'})


def test_safetensors_take_no_prefix_that_their_readers_take_away(tmp_path: Path) -> None:
    renamer = WeightRenamer(old_weights())
    renamer.add_prefix('module.')
    with pytest.raises(
        CheckpointError, match=r"plain names for .*w\.safetensors but got 'module\.layer1\.weight'\. Call rem"
    ):
        renamer.save(tmp_path / 'w.safetensors')
    assert not list(tmp_path.iterdir())
    renamer.save(tmp_path / 'w.pth')
    assert next(iter(torch.load(tmp_path / 'w.pth', weights_only=True))) == 'module.layer1.weight'


def test_what_only_lightning_could_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class AttributeDict(dict):  # type: ignore[type-arg]
        pass

    class ModelCheckpoint:
        pass

    for package in ('pytorch_lightning', 'pytorch_lightning.utilities', 'pytorch_lightning.callbacks'):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for path, kind in (('utilities.parsing', AttributeDict), ('callbacks.model_checkpoint', ModelCheckpoint)):
        module = types.ModuleType(f'pytorch_lightning.{path}')
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    callbacks = {ModelCheckpoint: {'best': 1.0}, 'EarlyStopping': [ModelCheckpoint(), 2]}
    torch.save(
        {'state_dict': old_weights(), 'hyper_parameters': AttributeDict(lr=0.1), 'callbacks': callbacks, 'epoch': 4},
        tmp_path / 'last.ckpt',
    )
    for name in [name for name in sys.modules if name.startswith('pytorch_lightning')]:
        monkeypatch.delitem(sys.modules, name)
    renamer = WeightRenamer(tmp_path / 'last.ckpt')
    renamer.rename_keys(mapping())
    renamer.save(tmp_path / 'new.pth')
    saved = torch.load(tmp_path / 'new.pth', weights_only=True)
    New().load_state_dict(saved.pop('state_dict'))
    assert saved == {'hyper_parameters': {'lr': 0.1}, 'callbacks': {'EarlyStopping': [2]}, 'epoch': 4}


def test_a_folder_is_read_as_a_whole(tmp_path: Path) -> None:
    halves = [dict(list(old_weights().items())[part]) for part in (slice(4), slice(4, None))]
    index = {}
    for number, half in enumerate(halves, 1):
        file = f'model-0000{number}-of-00002.safetensors'
        save_file(half, tmp_path / file)
        index.update(dict.fromkeys(half, file))
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': index}))
    renamer = WeightRenamer(tmp_path)
    renamer.rename_keys(mapping())
    New().load_state_dict(renamer.state_dict)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'nowhere\.pth does not exist'):
        WeightRenamer(tmp_path / 'nowhere.pth')


# refusals leave the names as they were


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'layer1.weight': 'x', 'layer2.weight': 'x'}, r"got 'x' for both 'layer1\.weight' and 'layer2\.weight'\. Ren"),
        ({'layer1.weight': 'bn.bias'}, r"got 'bn\.bias' for both 'layer1\.weight' and 'bn\.bias'\. Rename or drop one"),
        ({}, r'Expected names of the state dict to rename but got none\. Check what made the mapping\.'),
        ({'layer1.wieght': 'x'}, r"names of the state dict but got 'layer1\.wieght'\. Did you mean 'layer1\.weight'"),
    ],
)
def test_collisions_and_unknown_names_are_errors(wrong: dict[str, str], message: str) -> None:
    renamer = WeightRenamer(old_weights())
    with pytest.raises(CheckpointError, match=message):
        renamer.rename_keys(wrong)
    assert renamer.list_keys() == list(old_weights())
    with pytest.raises(CheckpointError, match='Expected a backup'):
        renamer.restore_backup()


def test_a_collision_with_a_dropped_tensor_is_none() -> None:
    renamer = WeightRenamer(old_weights())
    renamer.rename_keys({'layer1.weight': 'bn.bias'}, preserve_unmapped=False)
    assert torch.equal(renamer.state_dict['bn.bias'], old_weights()['layer1.weight'])


def test_a_prefix_that_no_name_has_is_an_error() -> None:
    with pytest.raises(
        CheckpointError, match=r"begin with 'module\.' but none does; they begin with layer1, layer2, bn\."
    ):
        WeightRenamer(old_weights()).remove_prefix('module.')


def test_a_removed_prefix_that_joins_two_names_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"got 'w' for both 'a\.w' and 'w'\."):
        WeightRenamer({'a.w': torch.ones(1), 'w': torch.ones(1)}).remove_prefix('a.')


def test_what_is_not_a_tensor_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"non-tensor entries such as \['epoch'\]"):
        WeightRenamer({'w': torch.ones(1), 'epoch': 3})


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, bomb: Any) -> None:
    torch.save({'state_dict': old_weights(), 'hook': bomb}, tmp_path / 'bomb.pth')
    with pytest.raises(CheckpointError, match=r'Nothing was executed\.'):
        WeightRenamer(tmp_path / 'bomb.pth')
    assert not bomb.marker.exists()


def test_a_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    renamer = WeightRenamer(file)
    renamer.add_prefix('x.')

    def full_disk(content: Any, stream: Any) -> None:
        stream.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match='No space left'):
        renamer.save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# plans


def test_a_plan_that_only_renames_is_a_mapping() -> None:
    entries = [Entry(new, (1,), 'renamed', (Piece(old),)) for old, new in mapping().items()]
    renamer = WeightRenamer(old_weights())
    renamer.rename_keys(plan_of(*entries, Entry('extra.bias', (2,), 'random', reason='nothing fits')))
    New().load_state_dict(renamer.state_dict)


@pytest.mark.parametrize(
    'entries',
    [
        [Entry('w', (1,), 'converted', (Piece('layer1.weight', (Step('permute', {'dims': [1, 0]}),)),))],
        [Entry('w', (1,), 'converted', (Piece('layer1.weight'), Piece('layer2.weight')), join=0)],
        [Entry('w', (1,), 'converted', (Piece(None, shape=(1,)),))],
        [Entry('a', (1,), 'renamed', (Piece('bn.bias'),)), Entry('w', (1,), 'renamed', (Piece('bn.bias'),))],
    ],
    ids=['steps', 'several', 'zeros', 'twice'],
)
def test_a_plan_that_needs_more_is_refused_with_the_cure(entries: list[Entry]) -> None:
    message = r'only renames but 1 of its \d tensors need more, such as w\. Carry it out with tools/project_weights\.py'
    with pytest.raises(CheckpointError, match=message):
        WeightRenamer(old_weights()).rename_keys(plan_of(*entries))


def test_the_summary_counts_and_lists(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WeightRenamer(file).print_summary(top_n=2)
    said = capsys.readouterr().out
    assert f'Weight file: {file}' in said
    assert '9 tensors, 64 values' in said
    assert 'layer1.weight' in said
    assert '(6, 4)' in said
    assert 'layer2' not in said
    assert '... and 7 more' in said
