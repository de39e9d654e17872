"""The panel of rented pods in a real JupyterLab, with a pod of the sandbox: seen, extended, ended, gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.notebook import lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
pytestmark = pytest.mark.skipif(not Path(lab.CHROMIUM).exists(), reason=f"there is no Chromium at {lab.CHROMIUM}")

CELLS = (
    "%load_ext podlab\n%podlab sandbox up",
    "%pod create lab --gpu A40 --provider sandbox --ttl 2h --budget 5 --yes ;",
    "%pod panel",
    "%podlab sandbox down --yes",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[lab.Lab]:
    with lab.running(tmp_path) as running:
        yield running


def _button(page: Page, label: str) -> Locator:
    button = page.get_by_role("button", name=label, exact=True)
    button.wait_for(timeout=60_000)
    return button


def _picture(page: Page, name: str) -> None:
    """Kept where PODLAB_PICTURES says, in both themes."""
    folder = os.environ.get("PODLAB_PICTURES")
    for theme in ("JupyterLab Light", "JupyterLab Dark") if folder else ():
        lab.command(page, "apputils:change-theme", {"theme": theme})
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{folder}/{name}-{theme[11:].lower()}.png")


def test_a_pod_is_seen_extended_and_ended_in_the_panel_while_cells_run(server: lab.Lab) -> None:
    with server.page() as page:
        server.write("panel.ipynb", *CELLS, "40 + 2")
        server.open(page, "panel.ipynb")
        for cell in range(3):
            server.begin(page, cell)
            server.ended(page, cell, timeout_s=120)
        panel = page.locator(".jp-CodeCell").nth(2)
        panel.get_by_text("1 simulated pod at").wait_for(timeout=60_000)
        panel.get_by_text("protected: ").wait_for(timeout=60_000)
        _picture(page, "open")

        _button(page, "Extend by 1 h").click()
        _button(page, "No")
        _picture(page, "asks")
        server.begin(page, 4)  # a question in a panel keeps no cell from running
        assert "42" in server.ended(page, 4)
        panel.get_by_role("button", name="No", exact=True).click()

        _button(page, "End").click()
        _button(page, "End lab").click()
        panel.get_by_text("Nothing is rented, so nothing is billed.").wait_for(timeout=120_000)
        panel.get_by_text("lab: gone, and proven so.").wait_for(timeout=60_000)
        _picture(page, "ended")
        server.begin(page, 3)
        server.ended(page, 3)
