from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.plan import AxisGroup, Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.project import hash_source, load_into, plan_for, project, report_for
from kdplugin.weights.reading.io import hash_file, hash_tensors
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reports import picture
from kdplugin.weights.reports.report_text import report_text


class Student(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, width), nn.Linear(width, 2)


MEMBERS = (('fc1.weight', 0, 'out'), ('fc1.bias', 0, 'out'), ('fc2.weight', 1, 'in'))


def narrowing(source: str = 'the state dict') -> ProjectionPlan:
    """The first 4 of 6 hidden units."""

    def cut(dim: int, side: str) -> tuple[Step, ...]:
        return (Step('project', {'dim': dim, 'group': 'hidden', 'side': side}),)

    entries = (
        Entry('fc1.weight', (4, 3), 'projected', (Piece('fc1.weight', cut(0, 'out')),)),
        Entry('fc1.bias', (4,), 'projected', (Piece('fc1.bias', cut(0, 'out')),)),
        Entry('fc2.weight', (2, 4), 'projected', (Piece('fc2.weight', cut(1, 'in')),)),
        Entry('fc2.bias', (2,), 'random', reason='other classes'),
    )
    group = AxisGroup('hidden', 6, 4, 'truncate', MEMBERS)
    return ProjectionPlan(source, 'Student', entries, groups={'hidden': group})


def wide() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Student(6).state_dict())


def test_a_plan_becomes_tensors_and_a_report_with_errors() -> None:
    source = open_source(wide())
    before = hash_tensors(source)
    student = Student()
    untouched = hash_tensors(student.state_dict())
    made = project(source, student, plan=narrowing())
    assert {name: tuple(value.shape) for name, value in made.tensors.items()} == {
        'fc1.weight': (4, 3), 'fc1.bias': (4,), 'fc2.weight': (2, 4),
    }  # fmt: skip
    assert torch.equal(made.tensors['fc1.weight'], wide()['fc1.weight'][:4])
    lost = wide()['fc1.weight'][4:].norm() / wide()['fc1.weight'].norm()
    assert made.report.errors['fc1.weight'] == pytest.approx(float(lost), abs=1e-6)
    assert made.report.rows[0].source_shapes == ((6, 3),)
    assert made.report.coverage == {'tensors': 3 / 4, 'parameters': 24 / 26}
    assert hash_tensors(source) == before
    assert hash_tensors(student.state_dict()) == untouched


def test_loading_writes_in_place_and_names_what_changed() -> None:
    student = Student()
    parameters = dict(student.named_parameters())
    tensors = project(open_source(wide()), student, plan=narrowing()).tensors
    bias = student.fc2.bias.clone()
    assert load_into(student, tensors) == ['fc1.weight', 'fc1.bias', 'fc2.weight']
    assert all(parameters[name] is value for name, value in student.named_parameters())
    assert torch.equal(student.fc1.weight, tensors['fc1.weight'])
    assert torch.equal(student.fc2.bias, bias)
    assert load_into(student, tensors) == []
    assert student.fc1.weight.requires_grad


def test_tensors_get_the_types_of_the_target() -> None:
    source = {name: value.bfloat16() for name, value in wide().items()}
    made = project(open_source(source), Student(), plan=narrowing())
    assert {value.dtype for value in made.tensors.values()} == {torch.float32}


def test_too_little_coverage_stops_before_a_tensor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('kdplugin.weights.project.apply_plan', None)
    with pytest.raises(CheckpointError, match=r'95\.0 % of the parameters of Student but got 92\.3 %.*other classes'):
        project(open_source(wide()), Student(), plan=narrowing(), min_coverage=0.95)


def test_a_plan_file_is_read(tmp_path: Path) -> None:
    narrowing().save(tmp_path / 'plan.json')
    assert plan_for(open_source(wide()), Student(), plan=tmp_path / 'plan.json') == narrowing()


def test_a_plan_for_another_model_is_refused() -> None:
    message = (
        r'Expected a plan for the 4 tensors of Student but 3 do not fit, such as fc1\.bias: \(4,\) in the plan, \(5,\) '
        r'in the model\. Make the plan for this model'
    )
    with pytest.raises(CheckpointError, match=message):
        plan_for(open_source(wide()), Student(5), plan=narrowing())
    message = r'but 2 do not fit, such as bias: absent in the plan, \(4,\) in the model'
    with pytest.raises(CheckpointError, match=message):
        plan_for(open_source(wide()), nn.Linear(3, 4), plan=ProjectionPlan('a', 'b', ()))


def test_records_hold_plan_report_and_picture(tmp_path: Path) -> None:
    made = project(open_source(wide()), Student(), plan=narrowing())
    made.save_records(tmp_path / 'records')
    names = {'plan.json', 'report.json', 'report.txt', 'layers.png'}
    assert {file.name for file in (tmp_path / 'records').iterdir()} == names
    assert ProjectionPlan.load(tmp_path / 'records' / 'plan.json') == narrowing()
    assert json.loads((tmp_path / 'records' / 'report.json').read_text()) == json.loads(made.report.to_json())
    assert (tmp_path / 'records' / 'report.txt').read_text() == report_text(made.report, every_tensor=True) + '\n'


def test_a_report_before_anything_is_made_has_no_errors() -> None:
    report = report_for(narrowing(), open_source(wide()))
    assert [row.error for row in report.rows] == [None] * 4
    assert picture.draw_plan(report).axes[0].collections[1].get_offsets().shape == (2, 2)


def test_the_hash_is_that_of_the_file_or_of_all_tensors_of_a_folder(tmp_path: Path) -> None:
    torch.save(wide(), tmp_path / 'model.pth')
    assert hash_source(tmp_path / 'model.pth', open_source(tmp_path / 'model.pth')) == hash_file(tmp_path / 'model.pth')
    assert hash_source(tmp_path, open_source(tmp_path)) == hash_tensors(wide())


@pytest.mark.parametrize('dtype', [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize('width', [6, 4])
def test_quantised_sources_are_refused_when_the_plan_is_made(dtype: torch.dtype, width: int) -> None:
    codes = {name: value.to(dtype) if value.ndim > 1 else value for name, value in wide().items()}
    message = r'quantised ones in \d of \d tensors: fc\d\.weight \((int8|float8_e4m3fn)\).* from before quantisation'
    with pytest.raises(CheckpointError, match=message):
        plan_for(open_source(codes), Student(width))
    unused = {**wide(), 'elsewhere.scales': torch.ones(3).to(dtype)}
    assert plan_for(open_source(unused), Student(width)).unused.keys() >= {'elsewhere.scales'}


@torch.no_grad()
def test_calibration_chooses_by_activations() -> None:
    """Unit 5 has the largest weights, but a bias that keeps it silent on what the batches hold."""

    class Wide(Student):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(self.act(self.fc1(x)))

    model = Wide(6)
    model.act = nn.ReLU()
    model.fc1.weight[5], model.fc1.bias[5], model.fc2.weight[:, 5] = 9.0, -1000.0, 9.0
    batches = [torch.randn(50, 3, generator=torch.Generator().manual_seed(1))]
    before = hash_tensors(model.state_dict())
    kept = {}
    for name, calibration in (('weights', None), ('activations', batches)):
        made = project(model, Student(4), calibration=calibration)
        kept[name] = [int((model.fc1.weight == row).all(1).nonzero()) for row in made.tensors['fc1.weight']]
    assert 5 in kept['weights']
    assert 5 not in kept['activations']
    assert hash_tensors(model.state_dict()) == before


def test_calibration_needs_a_model() -> None:
    message = r'Expected a model as source for calibration but got MemorySource .*\. Build the model that has'
    with pytest.raises(ConfigError, match=message):
        project(open_source(wide()), Student(4), calibration=[torch.zeros(2, 3)])
