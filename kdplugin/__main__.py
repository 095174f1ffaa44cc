"""The tools without the repository: ``python -m kdplugin TOOL ...`` takes what ``tools/TOOL.py ...`` takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kdplugin.package_files import tool_file, tool_names
from kdplugin.reports.cli import run_tool

USAGE = """usage: python -m kdplugin TOOL [arguments of the tool]

Runs a tool as tools/TOOL.py runs in the repository; python -m kdplugin TOOL --help tells its arguments.
Configs of the package are named kdplugin::FOLDER/FILE.py, those of mmdet and mmseg mmdet::... and mmseg::...

tools: """


def main(argv: list[str] | None = None) -> int:
    """Become a tool, or say which there are."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help'):
        print(USAGE + ', '.join(tool_names()))
        return 0
    return run_tool(lambda: become(tool_file(name), arguments))


def become(script: Path, arguments: list[str]) -> int:
    """Put a script in the place of this process; what it starts as ``python`` is this Python."""
    program = 'bash' if script.suffix == '.sh' else sys.executable
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", os.defpath)}'
    os.execvpe(program, [program, str(script), *arguments], {**os.environ, 'PATH': path})  # noqa: S606


if __name__ == '__main__':
    sys.exit(main())
