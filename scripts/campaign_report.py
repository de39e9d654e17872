"""Turn pytest's JUnit XML into a page of Markdown: where it ran, what each file did, what failed, what was measured.

    python scripts/campaign_report.py RESULTS.xml REPORT.md

A test's `record_property("name", value)` appears as a figure.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

OUTCOMES = ("passed", "failed", "skipped")


def outcome(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def reason(case: ET.Element) -> str:
    for tag in ("failure", "error", "skipped"):
        if (found := case.find(tag)) is not None:
            return (found.get("message") or "").strip().splitlines()[0][:200] if found.get("message") else ""
    return ""


def commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def page(suite: ET.Element) -> str:
    cases = list(suite.iter("testcase"))
    files: dict[str, list[ET.Element]] = defaultdict(list)
    for case in cases:
        files[(case.get("classname") or "").replace(".", "/")].append(case)
    counts = {kind: sum(outcome(case) == kind for case in cases) for kind in OUTCOMES}
    lines = [
        "# Campaign",
        "",
        f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- Commit: {commit()}",
        f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        f"- Outcome: {', '.join(f'{number} {kind}' for kind, number in counts.items())}",
        "",
        "| file | passed | failed | skipped | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, group in sorted(files.items()):
        numbers = " | ".join(str(sum(outcome(case) == kind for case in group)) for kind in OUTCOMES)
        lines.append(f"| {name} | {numbers} | {sum(float(case.get('time', 0)) for case in group):.1f} |")
    for kind in ("failed", "skipped"):
        if counts[kind]:
            chosen = [case for case in cases if outcome(case) == kind]
            lines += ["", f"## {kind.capitalize()}", ""]
            lines += [f"- `{case.get('classname')}::{case.get('name')}`: {reason(case)}" for case in chosen]
    figures = [(case, each) for case in cases for each in case.iter("property")]
    if figures:
        lines += ["", "## Figures", "", "| test | figure | value |", "| --- | --- | ---: |"]
        lines += [f"| {case.get('name')} | {each.get('name')} | {each.get('value')} |" for case, each in figures]
    return "\n".join(lines) + "\n"


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    Path(sys.argv[2]).write_text(page(ET.parse(sys.argv[1]).getroot()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
