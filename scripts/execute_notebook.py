"""Execute a notebook from top to bottom in a fresh kernel, saying which cell runs. Exit status 1 when a cell fails.

    .venv/bin/python scripts/execute_notebook.py [--answers] [--save FILE] [--timeout SECONDS] NOTEBOOK

--answers shows what `%%chat` cells printed; --save writes the executed notebook.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def label(cell: Any) -> str:
    """A cell in one line: all of a cell magic, the first line of anything else."""
    first, *rest = str(cell.source).strip().splitlines()
    if first.startswith("%%"):
        first = "  ".join([first, *rest])
    elif rest:
        first += " ..."
    return first if len(first) <= 74 else first[:70] + " ..."


def said(cell: Any) -> str:
    """What a cell showed, as plain text, in order: streams, and the text form of displays and results."""
    parts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type in ("display_data", "execute_result"):
            data = output.data
            parts.append(data.get("text/markdown") or data.get("text/plain") or "")
        elif output.output_type == "error":
            parts.append("\n".join(output.traceback))
    return ESCAPES.sub("", "\n".join(part.strip() for part in parts if part.strip()))


def usage_errors(notebook: Any) -> list[str]:
    """Cells that IPython refused with a UsageError: it goes to stderr only, so the cell looks as if it had worked."""
    return [
        label(cell)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr" and "UsageError" in output.text
    ]


class Progress:
    """A line per cell: its number when it starts, how long it took when it has ended."""

    def __init__(self, notebook: Any, answers: bool) -> None:
        self.code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source]
        self.answers = answers
        self.started = 0.0

    def start(self, cell: Any, cell_index: int) -> None:
        if cell_index in self.code:
            self.started = time.monotonic()
            print(f"[{self.code.index(cell_index) + 1:2}/{len(self.code)}] {label(cell):75}", end="", flush=True)

    def end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        print(f"{time.monotonic() - self.started:6.1f} s", flush=True)
        if self.answers and cell.source.startswith("%%chat"):
            print(f"\n        You:  {cell.source.partition(chr(10))[2].strip()}")
            print("        Model: " + "\n               ".join(said(cell).splitlines()) + "\n", flush=True)


def execute(path: Path, *, timeout_s: int, answers: bool) -> Any:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    progress = Progress(notebook, answers)
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=progress.start,
        on_cell_executed=progress.end,
    )
    # Sockets of this user's own instead of ports that any program of this computer could speak to.
    with tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        manager = client.create_kernel_manager()
        manager.transport, manager.ip = "ipc", f"{sockets}/k"
        client.execute()
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--answers", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--timeout", type=int, default=300, metavar="SECONDS", help="for each cell")
    args = parser.parse_args()

    print(f"Running {args.notebook}")
    try:
        notebook = execute(args.notebook, timeout_s=args.timeout, answers=args.answers)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"\nThe notebook stopped at the cell above:\n{ESCAPES.sub('', str(error)).strip()}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError, AssertionError):
        # At Ctrl-C nbclient ends the kernel itself, and then whatever waits for the kernel fails in one of these ways.
        print("\nInterrupted.", file=sys.stderr)
        return 130
    if args.save:
        nbformat.write(notebook, args.save)  # type: ignore[no-untyped-call]
    if refused := usage_errors(notebook):
        print("IPython refused these cells (UsageError): " + "; ".join(refused), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
