"""What a person sees: a real JupyterLab in a real Chromium, and what hostile output can do there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook import lab

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
pytestmark = pytest.mark.skipif(not Path(lab.CHROMIUM).exists(), reason=f"there is no Chromium at {lab.CHROMIUM}")

LOAD = "%load_ext podlab\nfrom tests.notebook import standin; standin.install()"
HOSTILE = """\
from IPython.display import HTML, display
from podlab.display.html import ask_html, html, notice_html, prose_html, stage_html
from podlab.events import Ask, Notice, Stage
from tests.display import payloads, values
display(HTML("".join(prose_html(payload, reasoning=payload, figures=payload) for payload in payloads.MARKDOWN)))
display(HTML("".join(html(values.made(kind, payload)) for kind in values.KINDS for payload in payloads.BARE)))
display(HTML("".join(stage_html(Stage(p, p, 1, 3), 2) + notice_html(Notice(p, "warning")) for p in payloads.BARE)))
display(HTML("".join(ask_html(Ask(p, "choice", p, (p, p), facts=((p, p),))) for p in payloads.BARE)))"""
STREAMED = """\
for payload in payloads.BARE:
    get_ipython().run_line_magic("pod", "answer --text {payload}")"""
CONTROL = """\
display(HTML("<img src=x onerror=window.__control=1>"))"""
TYPESET = """\
display(HTML("<div>$x^2$</div>"))"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with lab.running(tmp_path_factory.mktemp("lab")) as running:
        yield running


def _outputs(page: Any) -> list[str]:
    texts: list[str] = page.eval_on_selector_all(".jp-OutputArea-output", "nodes => nodes.map(node => node.innerText)")
    return texts


@pytest.mark.timeout(300)
def test_hostile_output_runs_nothing_and_asks_for_nothing(server: lab.Lab) -> None:
    server.write("hostile.ipynb", LOAD, HOSTILE, STREAMED, CONTROL, TYPESET)
    server.outside.clear()
    with server.page() as page:
        server.run_all(page, "hostile.ipynb")
        page.wait_for_function("() => window.__control === 1")  # script in an output does run here
        page.wait_for_selector(".jp-OutputArea-output mjx-container")  # and mathematics is typeset
        assert page.locator(".podlab").count() > 1000
        assert page.evaluate("() => window.__owned") is None
        assert server.dialogs == []
        assert server.outside == []
        bad = "script,img,iframe,object,embed,svg,math,form,input,video,audio,link,meta,base,style,mjx-container"
        assert page.locator(".podlab").locator(bad).count() == 0
        schemes = page.eval_on_selector_all(".podlab a[href]", "nodes => [...new Set(nodes.map(a => a.protocol))]")
        assert set(schemes) <= {"http:", "https:"}
        handlers = page.eval_on_selector_all(
            ".podlab, .podlab *",
            "nodes => nodes.flatMap(node => node.getAttributeNames()).filter(name => name.startsWith('on'))",
        )
        assert handlers == []


@pytest.mark.timeout(300)
def test_a_notebook_shows_pods_an_answer_and_an_error(server: lab.Lab, tmp_path: Path) -> None:
    server.write(
        "tour.ipynb", LOAD, "%pod list", "%model catalog", "%pod stages --seconds 0.8",
        "text = '''The **answer** is:\\n\\n1. first\\n2. second\\n\\n```python\\nprint(\"hello\")\\n```\\n\\n"
        "| a | b |\\n|---|--:|\\n| x | 12 |\\n\\n> quoted, with `code` and a [link](https://example.org).'''\n"
        "get_ipython().run_line_magic('pod', 'answer --seconds 1 --text {text}')",
        "%pod question --yes", "%pod show", "%model start tiny --dry-run", "%pod output", "%pod --help", "%pod lst",
    )  # fmt: skip
    shots = Path(os.environ.get("PODLAB_SCREENSHOTS") or tmp_path)
    with server.page() as page:
        page.set_viewport_size({"width": 1200, "height": 2600})
        server.run_all(page, "tour.ipynb")
        shown = _outputs(page)
        joined = "\n".join(shown)
        assert "this computer" in joined
        assert "reachable" in joined
        assert joined.count("The answer is:") == 1
        assert "tokens/s" in joined
        assert "Took 1." in joined
        assert "Warning: Look here." in joined
        assert "BadArgument: pod has no verb 'lst'." in joined
        assert "Did you mean list?" in joined
        assert page.get_by_role("columnheader", name="state").count() >= 1
        assert page.get_by_role("rowheader", name="local", exact=True).count() >= 1
        page.screenshot(path=shots / "tour-light.png")
        dark(page)
        page.screenshot(path=shots / "tour-dark.png")


def test_a_person_completes_a_pod_name(server: lab.Lab) -> None:
    server.write("complete.ipynb", LOAD, "%pod use lo")
    with server.page() as page:
        server.open(page, "complete.ipynb")
        lab.command(page, "notebook:run-cell-and-select-next")
        page.wait_for_function("() => /\\[1\\]/.test(document.querySelector('.jp-InputPrompt').textContent)")
        page.locator(".jp-CodeCell .cm-content").nth(1).click()
        page.keyboard.press("End")
        page.keyboard.press("Tab")
        offered = page.locator(".jp-Completer-item")
        offered.first.wait_for()
        assert [text.split() for text in offered.all_inner_texts()] == [["p", "local", "pod"]]
        page.keyboard.press("Enter")
        page.wait_for_function(
            "() => document.querySelectorAll('.jp-CodeCell .cm-content')[1].textContent === '%pod use local'"
        )


@pytest.mark.timeout(300)
def test_a_price_is_asked_with_buttons_and_a_key_is_typed_hidden(server: lab.Lab, tmp_path: Path) -> None:
    """Whoever says no rents nothing; what is typed for a key is dots, and is in no output."""
    server.write(
        "rent.ipynb", "%load_ext podlab\n%env PODLAB_PROVIDER=sandbox\n%podlab sandbox up", "%pod create lab --ttl 1h",
        "%podlab secret set CANARY_KEY", "%config Podlab.buttons = False\n%pod create lab --ttl 1h",
        "%podlab sandbox down",
    )  # fmt: skip
    shots = Path(os.environ.get("PODLAB_SCREENSHOTS") or tmp_path)

    def type_in(page: Any, text: str) -> str:
        typed = page.locator(".jp-Stdin-input:visible")
        typed.wait_for(timeout=60_000)
        kind = str(typed.get_attribute("type"))
        typed.fill(text)
        typed.press("Enter")
        page.wait_for_function("() => document.querySelectorAll('.jp-Stdin-input').length === 0")
        return kind

    with server.page() as page:
        server.open(page, "rent.ipynb")
        server.begin(page, 0)
        page.get_by_text("open (simulated)").wait_for(timeout=60_000)
        server.begin(page, 1)
        page.get_by_role("button", name="Rent for up to $").wait_for(timeout=60_000)
        page.screenshot(path=shots / "price-light.png")
        dark(page)
        page.screenshot(path=shots / "price-dark.png")
        page.get_by_role("button", name="No", exact=True).click()
        asked = server.ended(page, 1)
        server.begin(page, 2)
        assert type_in(page, "canary-0123456789") == "password"
        server.ended(page, 2)
        server.begin(page, 3)
        assert type_in(page, "n") != "password"
        prompted = server.ended(page, 3)
        server.begin(page, 4)
        page.get_by_text("The sandbox is closed.").wait_for(timeout=60_000)
        shown = "\n".join(_outputs(page))
    for said in (asked, prompted):
        assert "Rent A40, secure for $" in said and "(simulated)" in said and "nothing was rented" in said
        assert all(name in said for name in ("price", "cap", "deadline", "in 1 h", "if this computer died right after"))
    assert "Answered: No." in asked and "Answered" not in prompted
    assert "canary" not in shown


def dark(page: Any) -> None:
    """Change to the dark theme."""
    lab.command(page, "apputils:change-theme", {"theme": "JupyterLab Dark"})
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor.match(/\\d+/)[0] < 80"
    )
    page.wait_for_selector("#jupyterlab-splash", state="detached")
