"""The buttons of a question in a real JupyterLab: what a person can press, and what presses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.notebook import lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
pytestmark = [
    pytest.mark.skipif(not Path(lab.CHROMIUM).exists(), reason=f"there is no Chromium at {lab.CHROMIUM}"),
    pytest.mark.timeout(300),
]

LOAD = "%load_ext podlab\nfrom tests.notebook import standin; standin.install()"
FOCUS = "() => document.activeElement.closest('.podlab-buttons') !== null"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with lab.running(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def page(server: lab.Lab) -> Iterator[Page]:
    with server.page() as page:
        yield page


def _asked(server: lab.Lab, page: Page, *cells: str) -> None:
    """A notebook whose second cell, or all of `cells` after the first, has begun to ask."""
    server.write("ask.ipynb", LOAD, *cells)
    server.open(page, "ask.ipynb")
    server.begin(page, 0)
    server.ended(page, 0)
    server.begin(page, 1)


def _ready(page: Page, label: str) -> Locator:
    """A button that can be pressed."""
    button = page.get_by_role("button", name=label, exact=True)
    button.wait_for(timeout=60_000)
    page.wait_for_function(
        "label => [...document.querySelectorAll('.podlab-buttons button')]"
        ".some(each => each.textContent === label && !each.disabled)",
        arg=label, timeout=30_000,
    )  # fmt: skip
    return button


def test_each_question_needs_a_press_of_its_own(server: lab.Lab, page: Page) -> None:
    """The input box is out of the way while the buttons are there; the host key is asked after the price."""
    _asked(server, page, "%pod agree")
    price = _ready(page, "Rent for $0.406/h")
    assert not page.locator(".jp-Stdin-input").is_visible()
    price.dblclick()
    _ready(page, "It is its key")  # the second click hit nothing
    page.get_by_role("button", name="No", exact=True).click()
    said = server.ended(page, 1)
    assert "price True, key False" in said
    assert "Answered: Rent for $0.406/h." in said and "Answered: No." in said
    assert page.locator(".podlab-buttons").count() == 0


def test_run_all_presses_nothing(server: lab.Lab, page: Page) -> None:
    """Two cells ask one after the other; the second question is there only when the first was answered."""
    server.write("all.ipynb", LOAD, "%pod question", "%pod question")
    server.open(page, "all.ipynb")
    lab.command(page, "notebook:run-all-cells")
    _ready(page, "Yes")
    assert page.locator(".podlab-buttons").count() == 1
    page.get_by_role("button", name="Yes", exact=True).click()
    assert "Answered: Yes." in server.ended(page, 1)
    _ready(page, "Yes")
    page.get_by_role("button", name="No", exact=True).click()
    assert "Refused" in server.ended(page, 2)


def test_the_keyboard_reaches_the_buttons_and_the_notebook_s_keys_do_not(server: lab.Lab, page: Page) -> None:
    """Enter by itself is no answer, D D deletes no cell, Tab reaches yes, Escape says no."""
    _asked(server, page, "%pod question", "1 + 1")
    _ready(page, "Yes")
    page.wait_for_function(FOCUS)
    for key in ("Enter", "Space", "y", "d", "d", "Tab", "d", "d"):
        page.keyboard.press(key)
    assert page.locator(".jp-CodeCell").count() == 3
    assert page.evaluate("() => document.activeElement.textContent") == "Yes"
    page.keyboard.press("Escape")
    assert "Answered: No." in server.ended(page, 1)
    server.begin(page, 1)
    _ready(page, "Yes")
    page.wait_for_function(FOCUS)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "Answered: Yes." in server.ended(page, 1)


def test_a_script_in_the_page_presses_nothing(server: lab.Lab, page: Page) -> None:
    """An output may hold a script; only a person's own click or key counts."""
    _asked(server, page, "%pod question")
    _ready(page, "Yes")
    page.evaluate("() => document.querySelector('.podlab-buttons button').click()")
    assert page.locator(".podlab-buttons-status").inner_text() == ""
    page.get_by_role("button", name="No", exact=True).click()
    assert "Answered: No." in server.ended(page, 1)


def test_an_interrupt_takes_the_buttons_away(server: lab.Lab, page: Page) -> None:
    _asked(server, page, "%pod agree")
    _ready(page, "Rent for $0.406/h")
    lab.command(page, "kernelmenu:interrupt")
    said = server.ended(page, 1)
    assert "Not answered, so not agreed to." in said and "Interrupted." in said
    assert page.locator(".podlab-buttons").count() == 0
    assert not page.locator(".jp-Stdin-input").is_visible()


def test_buttons_of_a_kernel_that_was_started_anew_do_nothing_and_say_so(server: lab.Lab, page: Page) -> None:
    """One is pressed before the page can know; then the page has heard nothing from the kernel for a while."""
    _asked(server, page, "%pod agree", "%pod agree")
    button = _ready(page, "Rent for $0.406/h")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    button.click()
    page.get_by_text("This question is over, and nothing came of it. Run the cell again.").wait_for(timeout=30_000)
    assert button.is_disabled()
    server.begin(page, 0)
    server.ended(page, 0)
    server.begin(page, 2)  # the new kernel asks the same, and the old buttons are no answer to it
    page.wait_for_function("() => document.querySelectorAll('.podlab-buttons').length === 2", timeout=30_000)
    page.locator(".podlab-buttons").nth(1).get_by_role("button", name="No").click()
    assert "Answered: No." in server.ended(page, 2)
    assert page.locator(".podlab-buttons button").first.is_disabled()


def test_a_question_of_a_silent_kernel_cannot_be_answered(server: lab.Lab, page: Page) -> None:
    _asked(server, page, "%pod agree")
    button = _ready(page, "Rent for $0.406/h")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.get_by_text("Nothing is heard from the kernel").wait_for(timeout=30_000)
    assert button.is_disabled()


def test_choices_are_answered_by_buttons_and_a_text_is_typed_or_kept(server: lab.Lab, page: Page) -> None:
    _asked(server, page, "%pod pick", "%pod pick")
    _ready(page, "2. two").click()
    _ready(page, "Keep lab").click()
    assert "chosen 1, named lab" in server.ended(page, 1)
    server.begin(page, 2)
    _ready(page, "1. one").click()
    _ready(page, "Keep lab")
    typed = page.locator(".jp-CodeCell").nth(2).locator(".jp-Stdin-input:visible")
    typed.last.fill("mine")
    typed.last.press("Enter")
    assert "chosen 0, named mine" in server.ended(page, 2)


def test_another_view_of_the_output_says_where_to_answer(server: lab.Lab, page: Page) -> None:
    """It has no input box of its own, and so nothing to press."""
    _asked(server, page, "%pod question")
    _ready(page, "Yes")
    lab.command(page, "notebook:create-output-view")
    page.get_by_text("Answer where the notebook asks for input").wait_for(timeout=30_000)
    view = page.locator(".jp-LinkedOutputView .podlab-buttons button")
    assert view.first.is_disabled()
    page.locator(".jp-Notebook .podlab-buttons").get_by_role("button", name="No").click()
    assert "Answered: No." in server.ended(page, 1)
