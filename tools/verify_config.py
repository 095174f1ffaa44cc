#!/usr/bin/env python
"""Check a training config without training it: tools/verify_config.py CONFIG [--cfg-options KEY=VALUE ...]"""

from __future__ import annotations

import argparse
import sys

from kdplugin import launch
from kdplugin.preflight.report import report_parts
from kdplugin.preflight.verify import verify
from kdplugin.reports.cli import run_tool
from kdplugin.reports.tables import show


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Report everything that is wrong with a config, before it costs a training.',
        epilog='Exit code 0: no errors (there may be warnings); 1: errors.',
    )
    parser.add_argument('config', help='config file, with or without distillation')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings that win over the config')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def body() -> int:
        findings = verify(launch.read_config(arguments.config, launch.parse_options(arguments.cfg_options)))
        show(*report_parts(findings, arguments.config))
        return int(any(finding.level == 'error' for finding in findings))

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
