"""The tool hands its arguments on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import make_wan_tiny as tool
import pytest

from kdplugin.datasets.prompts import read_prompts


def test_the_pipeline_is_made_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def make(folder: Path, **options: Any) -> Path:
        seen.update(options, folder=folder)
        return folder

    monkeypatch.setattr(tool, 'make_tiny_pipeline', make)
    assert tool.main(['--out', str(tmp_path / 'wan'), '--seed', '3', '--vae']) == 0
    assert seen == dict(folder=tmp_path / 'wan', prompts=read_prompts(), seed=3, vae=True)
    assert capsys.readouterr().out == f'{tmp_path / "wan"} is ready.\n'
