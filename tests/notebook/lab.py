"""A real JupyterLab in a real Chromium, both on this computer and with folders of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ROOT = Path(__file__).parents[2]
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@dataclass
class Lab:
    """A server and what a notebook's page did."""

    url: str
    token: str
    folder: Path
    outside: list[str] = field(default_factory=list)
    """Addresses that the page wanted from anywhere but the server."""
    dialogs: list[str] = field(default_factory=list)

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A page that can reach the server and nothing else, and notes what it tried."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
            page = browser.new_page(viewport={"width": 1200, "height": 1500})
            page.route("**/*", self._let_through)
            page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
            yield page
            browser.close()

    def _let_through(self, route: Any) -> None:
        address = route.request.url
        if address.startswith((self.url, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(address)
            route.abort()

    def write(self, name: str, *cells: str) -> None:
        """Put a notebook into the server's folder."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)

    def open(self, page: Page, name: str) -> None:
        """Open a notebook and wait until its kernel is there; a command before that would be asked which kernel."""
        page.goto(f"{self.url}/lab/tree/{name}?reset&token={self.token}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=60_000,
        )

    def begin(self, page: Page, number: int) -> None:
        """Begin to run a cell of the notebook that is open, counted from 0."""
        page.evaluate("at => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = at }", number)
        command(page, "notebook:run-cell")

    def ended(self, page: Page, number: int, *, timeout_s: float = 60) -> str:
        """Wait until a cell has ended; what it shows then, as text."""
        page.wait_for_function(
            "at => /\\[\\d+\\]/.test(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[at].textContent)",
            arg=number, timeout=1000 * timeout_s,
        )  # fmt: skip
        return str(page.locator(".jp-CodeCell").nth(number).locator(".jp-Cell-outputWrapper").inner_text())

    def run_all(self, page: Page, name: str) -> None:
        """Open a notebook and run it to its end."""
        self.open(page, name)
        command(page, "notebook:run-all-cells")
        cells = len(nbformat.read(self.folder / name, as_version=4).cells)  # type: ignore[no-untyped-call]
        page.wait_for_function(
            "count => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".filter(prompt => /\\[\\d+\\]/.test(prompt.textContent)).length >= count",
            arg=cells, timeout=200_000,
        )  # fmt: skip


def command(page: Page, name: str, arguments: object = None) -> None:
    """Run one of JupyterLab's commands."""
    # Not awaited in the page: a run ends when the notebook says so, and a wait that fails has a deadline of its own.
    page.evaluate("([name, given]) => void window.jupyterapp.commands.execute(name, given ?? {})", [name, arguments])


@contextmanager
def running(folder: Path) -> Iterator[Lab]:
    """A JupyterLab server whose every folder lies below `folder`."""
    token, port = secrets.token_hex(16), _free_port()
    config = folder / "config" / "labconfig"
    config.mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (config / "page_config.json").write_text(json.dumps(quiet))
    root = folder / "notebooks"
    root.mkdir()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "PODLAB_HOME": str(folder / "podlab"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "IPYTHONDIR": str(folder / "ipython"),
    }  # fmt: skip
    options = [
        "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True",
        "--ServerApp.port_retries=0",
    ]  # fmt: skip
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *options], env=environment, stdout=log, stderr=log, cwd=root
        )
        try:
            _wait(f"http://127.0.0.1:{port}/api?token={token}", server, folder / "lab.log")
            yield Lab(f"http://127.0.0.1:{port}", token, root)
        finally:
            server.terminate()
            server.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
