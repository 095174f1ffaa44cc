from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config, ConfigDict

from kdplugin.migration.config_text import Source, assignment, difference, plain, source_text, statements

BASE = dict(a=1, b=dict(x=1, y=dict(z=(1, 2))), c=[1, dict(d=None)])


@pytest.mark.parametrize(
    'wanted',
    [
        BASE,
        dict(BASE, a=2),
        dict(a=1, b=dict(x=1), c=[]),
        dict(a=1, b=dict(x=1, y=dict(z=[1, 2])), c=[1]),
        dict(a=dict(new=dict(deep="it's")), b=dict(x=1, y=dict(z=(1,), w=True)), c=None),
    ],
)
def test_a_config_that_inherits_and_says_the_difference_is_the_wanted_one(
    wanted: dict[str, Any], tmp_path: Any
) -> None:
    (tmp_path / 'base.py').write_text('\n'.join(assignment(key, value) for key, value in BASE.items()))
    changes = difference(BASE, wanted)
    lines = ["_base_ = ['./base.py']", *(assignment(key, value) for key, value in changes.items())]
    (tmp_path / 'new.py').write_text('\n'.join(lines))
    assert plain(Config.fromfile(tmp_path / 'new.py').to_dict()) == wanted
    assert not changes or wanted != BASE


def test_nothing_is_said_twice() -> None:
    assert difference(BASE, dict(BASE, b=dict(x=1, y=dict(z=3)))) == dict(b=dict(y=dict(z=3)))
    assert difference(BASE, BASE) == {}


def test_statements_reach_the_wanted_config() -> None:
    wanted = dict(a=dict(q=1), b=dict(x=5, y=dict(z=(1, 2), init=dict(type='P'))), c=[1, dict(d=None)])
    names = dict(model=ConfigDict(BASE))
    lines = list(statements('model', BASE, wanted))
    assert lines == ['model.a = dict(q=1)', 'model.b.x = 5', "model.b.y.init = dict(type='P')"]
    exec('\n'.join(lines), names)  # noqa: S102
    assert plain(names['model']) == wanted


def test_long_values_are_broken_into_lines() -> None:
    value = dict(
        names=['a' * 60, 'b' * 40], odd={'not a name': 1, 2: dict(type=3)}, one=(1,), code=Source('_base_.model')
    )
    text = assignment('model', value)
    assert eval(text.removeprefix('model = ').replace('_base_.model', "'_base_.model'")) == value  # noqa: S307
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[1] == '    names=['
    assert source_text(dict(x=[1, 2])) == 'dict(x=[1, 2])'


def test_scopes_that_are_the_default_are_left_out() -> None:
    value = dict(type='A', _scope_='mmdet', inner=[dict(_scope_='mmseg'), (dict(_scope_='mmdet'),)])
    assert plain(value, 'mmdet') == dict(type='A', inner=[dict(_scope_='mmseg'), ({},)])
    assert plain(value) == value
