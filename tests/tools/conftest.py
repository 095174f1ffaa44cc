from __future__ import annotations

import pytest


@pytest.fixture
def without_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the layout of written configs, which is most of the time of these tests."""
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
