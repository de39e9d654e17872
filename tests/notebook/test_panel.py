"""The panel of rented pods against a pretended company: pressed as a page presses it, without a page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab.commands.rent_results import RentalPanel
from podlab.lab.launches import Phase, all_launches
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.notebook.buttons import VIEW
from podlab.notebook.panel import PanelValue, PodsPanel
from podlab.renting import Policy
from podlab.settings import home
from tests.rentals import is_billed, open_sandbox, rent, until

pytest.importorskip("ipywidgets")


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with open_sandbox(tmp_path / "sandbox"):
        yield


@pytest.fixture
def panel() -> Iterator[PodsPanel]:
    workspace = Workspace.open()
    opened = PodsPanel(RentalPanel(()), lambda: workspace)
    yield opened
    opened.close()
    workspace.close()


def buttons(panel: PodsPanel) -> dict[str, Any]:
    """Every button that is there now, by what it says."""
    found: dict[str, Any] = {}

    def look(widget: Any) -> None:
        if hasattr(widget, "click") and not widget.disabled:
            found[widget.description] = widget
        for child in getattr(widget, "children", ()):
            look(child)

    look(panel.widget)
    return found


def texts(panel: PodsPanel) -> str:
    """All that it shows."""

    def look(widget: Any) -> str:
        return str(getattr(widget, "value", "")) + "".join(map(look, getattr(widget, "children", ())))

    return look(panel.widget)


def press(panel: PodsPanel, label: str) -> None:
    until(lambda: label in buttons(panel))
    buttons(panel)[label].click()


def test_a_pod_that_is_rented_meanwhile_appears_with_its_cost_and_what_ends_it(panel: PodsPanel) -> None:
    assert "Nothing is rented, so nothing is billed." in texts(panel)
    launch = rent(Policy(deadline_at=time.time() + 3600, budget_usd=5.0), price=0.5)

    until(lambda: launch.name in texts(panel))
    shown = texts(panel)

    assert "1 simulated pod at $0.50/h." in shown and "sandbox (simulated)" in shown and "at $5.00" in shown
    assert list(buttons(panel)) == ["Extend by 1 h", "Stop", "End"]


def test_a_pod_is_ended_by_two_buttons_and_counts_as_billed_until_that_is_proven(panel: PodsPanel) -> None:
    launch = rent(Policy(deadline_at=time.time() + 3600))

    press(panel, "End")
    press(panel, "No")
    until(lambda: "Nothing was ended, so the bill goes on." in texts(panel))
    assert is_billed(launch)
    press(panel, "End")
    press(panel, f"End {launch.name}")

    until(lambda: "it counts as billed until that is proven" in texts(panel) and not buttons(panel))
    assert not is_billed(launch) and all_launches(Ledger())[0].phase is Phase.ENDING


def test_a_longer_life_is_asked_with_its_price(panel: PodsPanel) -> None:
    launch = rent(Policy(deadline_at=time.time() + 3600, budget_usd=50.0))

    press(panel, "Extend by 1 h")
    until(lambda: "No" in buttons(panel))
    (yes,) = set(buttons(panel)) - {"No"}
    press(panel, yes)

    until(lambda: (all_launches(Ledger())[0].policy.deadline_at or 0) > (launch.policy.deadline_at or 0) + 3500)


def test_a_panel_that_is_closed_agrees_to_nothing(panel: PodsPanel) -> None:
    launch = rent(Policy(deadline_at=time.time() + 3600))
    press(panel, "End")
    until(lambda: "No" in buttons(panel))
    yes = buttons(panel)[f"End {launch.name}"]

    panel.close()
    yes.click()

    until(lambda: "bill goes on" in texts(panel))
    assert is_billed(launch) and buttons(panel) == {}


def test_what_is_old_because_the_ledger_cannot_be_read_says_so(panel: PodsPanel) -> None:
    launch = rent(Policy(deadline_at=time.time() + 3600))
    until(lambda: launch.name in texts(panel))

    (home() / "ledger.jsonl").write_text("damaged\nlines\n")

    until(lambda: "What stands here is older:" in texts(panel))
    assert launch.name in texts(panel)
    (home() / "ledger.jsonl").unlink()
    until(lambda: f"The ledger knows nothing of {launch.name} any more." in texts(panel))


def test_what_is_saved_without_its_kernel_is_the_table_of_its_opening(panel: PodsPanel) -> None:
    bundle = PanelValue(RentalPanel((), ("sandbox",), 2), panel)._repr_mimebundle_()

    assert bundle[VIEW]["model_id"] == panel.widget.model_id
    assert "2 pods were not rented from here" in bundle["text/plain"] and "No rented pods." in bundle["text/html"]
