"""`%pod panel`: rented pods in a notebook, live, with buttons that say the same words as a person would type.

The panel reads what this computer knows (ledger, notes of whoever tends) every few seconds and asks nobody. A button
starts its command on a thread, one at a time; what the command asks is asked in the panel, with buttons of its own, so
the kernel stays free for cells meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped, unused-ignore]

from podlab.commands import table
from podlab.commands.drive import drive
from podlab.commands.handlers.rentals import detail_of
from podlab.commands.parsing import parse
from podlab.commands.record import recorded
from podlab.commands.rent_results import RentalDetail, RentalPanel
from podlab.commands.results import Done
from podlab.display import questions
from podlab.display.html import ask_html, blocks_html, html, line_html, notice_html, stage_html
from podlab.display.layout import Block, Cell, Line
from podlab.display.rent import panel_notes, rental_card
from podlab.errors import PodlabError
from podlab.events import Answer, Ask, Chunk, Notice, Stage
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.rented_names import launch_list
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.notebook.buttons import view
from podlab.notebook.values import Rows
from podlab.secrets import redact
from podlab.units import usd_text

_log = logging.getLogger(__name__)

LOOK_S = 2.0
ANSWER_S = 300.0
"""How long a question waits: a price that was agreed to later may be another one."""
_BUTTON = widgets.Layout(width="auto", min_width="7em")


class PodsPanel:
    """The panel as widgets. `open_workspace` gives the workspace that commands work with; `close` ends it."""

    def __init__(self, found: RentalPanel, open_workspace: Callable[[], Workspace]) -> None:
        self._open_workspace = open_workspace
        self._notes = panel_notes(found)
        self._sum = _html()
        self._pods = widgets.VBox()
        self._said = _html()
        self._question = _Question()
        self._rows: dict[str, _Row] = {}
        self._drawing = threading.RLock()
        """Of who changes the rows: the thread that looks, one that carries out a command, the kernel's own."""
        self._working = threading.Lock()
        self._over = threading.Event()
        self.widget = widgets.VBox([self._sum, self._pods, self._question.widget, self._said])
        self.show(found.rentals)
        self._look = threading.Thread(target=self._looks, name="podlab-panel", daemon=True)
        self._look.start()

    def show(self, rentals: tuple[RentalDetail, ...]) -> None:
        """Bring the panel to what is known now."""
        with self._drawing:
            self._show(rentals)

    def _show(self, rentals: tuple[RentalDetail, ...]) -> None:
        now = time.time()
        self._sum.value = blocks_html((_sum(rentals), *self._notes))
        for rental in rentals:
            if rental.id not in self._rows:
                self._rows[rental.id] = _Row(self._do)
            self._rows[rental.id].show(rental, now)
        self._rows = {rental.id: self._rows[rental.id] for rental in rentals}
        shown = tuple(row.widget for row in self._rows.values())
        if self._pods.children != shown:
            self._pods.children = shown

    def close(self) -> None:
        """Leave what is shown as it is. A question that is open is not agreed to."""
        self._over.set()
        self._question.end()
        self._enable(False)

    def _looks(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look_again()

    def _look_again(self) -> None:
        try:
            launches, now = all_launches(Ledger()), time.time()
            self._gone({launch.id: launch for launch in launches})
            self.show(tuple(detail_of(launch, now) for launch in launch_list(launches, open_only=True)))
        except PodlabError as error:  # what is shown below stays, and is not said to be so now
            since = f"What stands here is older: {error.message} {error.hint}"
            self._sum.value = notice_html(Notice(redact(since), "warning"))
        except Exception:  # noqa: BLE001  # the thread that looks must not end
            _log.exception("the panel of rented pods could not be drawn")

    def _gone(self, known: dict[str, Launch]) -> None:
        """Tell of those that were shown and are open no longer what the ledger says."""
        with self._drawing:
            shown = dict(self._rows)
        for launch_id, row in shown.items():
            launch = known.get(launch_id)
            if launch is None:
                lost = f"The ledger knows nothing of {row.name} any more. See: podlab pod orphans"
                self._said.value = notice_html(Notice(lost, "warning"))
            elif not launch.is_open:
                proof = "gone, and proven so" if launch.phase is Phase.ENDED else f"not rented: {redact(launch.why)}"
                self._said.value = line_html(f"{row.name}: {proof}. See: podlab pod cost")

    def _enable(self, free: bool) -> None:
        with self._drawing:
            for row in self._rows.values():
                row.enable(free)

    def _do(self, words: list[str]) -> None:
        """Carry out a command on a thread of its own, unless one is under way."""
        if self._over.is_set() or not self._working.acquire(blocking=False):
            return
        self._enable(False)
        threading.Thread(target=self._done, args=(words,), name="podlab-panel-command", daemon=True).start()

    def _done(self, words: list[str]) -> None:
        try:
            verb, rest = table.find(words)
            args = parse(verb, rest, magic=True).args
            with recorded(verb, self) as audience:
                outcome = drive(verb.handler(self._open_workspace(), args), audience)
            # What became of a pod stands in its row.
            self._said.value = html(outcome.value) if isinstance(outcome.value, Done) else ""
        except PodlabError as error:
            hint = f" {error.hint}" if error.hint else ""
            self._said.value = notice_html(Notice(redact(f"{error.message}{hint}"), "warning"))
        except Exception as defect:  # noqa: BLE001  # nobody else would ever see it
            self._said.value = notice_html(Notice(redact(f"{type(defect).__name__}: {defect}"), "warning"))
        finally:
            self._working.release()
            self._look_again()
            self._enable(not self._over.is_set())

    # The audience of a command: called on its thread.

    def stage(self, stage: Stage) -> None:
        """Long work moved on."""
        self._said.value = stage_html(stage, 0.0)

    def chunk(self, chunk: Chunk) -> None:
        """No command of the panel has output."""

    def notice(self, notice: Notice) -> None:
        """A sentence, until the next one."""
        self._said.value = notice_html(Notice(redact(notice.text), notice.level))

    def ask(self, ask: Ask) -> Answer:
        """Ask in the panel; None when nobody answers in time."""
        facts = tuple((name, redact(value)) for name, value in ask.facts)
        ask = replace(ask, question=redact(ask.question), detail=redact(ask.detail), facts=facts)
        self._said.value = ""
        answer = self._question.answered(ask)
        self._said.value = line_html(questions.said(ask, answer))
        return answer


def _html(**layout: str) -> Any:
    """A piece of HTML that looks as one in a cell's output does."""
    made = widgets.HTML(layout=widgets.Layout(**layout))
    made.add_class("jp-RenderedHTMLCommon")
    return made


class PanelValue(Rows):
    """What `%pod panel` returns: its rows as a table in a program, the panel where it is shown."""

    def __init__(self, found: RentalPanel, panel: PodsPanel) -> None:
        super().__init__(found, list(found.rentals))
        self._panel = panel

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(include, exclude), **view(self._panel.widget)}


class _Row:
    """One pod: what is known of it, and what can be done with it."""

    def __init__(self, do: Callable[[list[str]], None]) -> None:
        self._do = do
        self._rental: RentalDetail | None = None
        self._free = True
        self._card = _html(flex="1 1 24em")
        self._buttons = {
            "extend": self._button("Extend by 1 h", lambda pod: ["pod", "extend", pod, "--ttl", "1h"]),
            "stop": self._button("Stop", lambda pod: ["pod", "stop", pod]),
            "start": self._button("Start", lambda pod: ["pod", "start", pod]),
            "end": self._button("End", lambda pod: ["pod", "terminate", pod, "--no-wait"]),
        }
        self._buttons["end"].button_style = "danger"
        row = widgets.Layout(flex_flow="row wrap", align_items="flex-start", padding="4px 0")
        self._bar = widgets.VBox(layout=widgets.Layout(flex="0 0 auto"))
        self.widget = widgets.Box([self._card, self._bar], layout=row)

    def show(self, rental: RentalDetail, now: float) -> None:
        """Bring the row to what is known now."""
        self._rental = rental
        shown = blocks_html(rental_card(rental, now))
        if self._card.value != shown:
            self._card.value = shown
        wanted = tuple(self._buttons[name] for name in _possible(rental))
        if self._bar.children != wanted:
            self._bar.children = wanted
        for button in self._buttons.values():
            button.tooltip = f"{button.description}: {rental.name}"
            button.disabled = not self._free

    @property
    def name(self) -> str:
        """Of its pod."""
        return self._rental.name if self._rental is not None else ""

    def enable(self, free: bool) -> None:
        """Whether its buttons can be pressed."""
        self._free = free
        for button in self._buttons.values():
            button.disabled = not free

    def _button(self, label: str, words: Callable[[str], list[str]]) -> Any:
        button = widgets.Button(description=label, layout=_BUTTON)

        def pressed(_button: object) -> None:
            if self._rental is not None:
                self._do(words(self._rental.id))  # by now another one may have its name

        button.on_click(pressed)
        return button


def _possible(rental: RentalDetail) -> tuple[str, ...]:
    """The buttons that mean something now."""
    match rental.state:
        case "ending" | "asked" | "refused" | "ended":
            return ("end",) if rental.state == "asked" else ()
        case "stopped":
            return ("start", "end")
        case _:
            return ("extend", "stop", "end")


class _Question:
    """A question and its buttons, there only while it is asked."""

    def __init__(self) -> None:
        self._text = _html()
        self._bar = widgets.HBox()
        self._given = threading.Event()
        self._answer: Answer = None
        self.widget = widgets.VBox([self._text, self._bar], layout=widgets.Layout(display="none", padding="4px 0"))

    def answered(self, ask: Ask) -> Answer:
        """Wait for a button; None where none is pressed for ANSWER_S, or the panel is closed."""
        self._given.clear()
        self._answer = None
        self._text.value = ask_html(ask)
        row = questions.buttons(ask)
        if not row:
            return None
        self._bar.children = tuple(self._button(ask, label, typed, number) for number, (label, typed) in enumerate(row))
        self.widget.layout.display = ""
        try:
            self._given.wait(ANSWER_S)
            return self._answer
        finally:
            self.widget.layout.display = "none"
            self._bar.children = ()
            self._text.value = ""

    def end(self) -> None:
        """Nobody answers any more."""
        self._given.set()

    def _button(self, ask: Ask, label: str, typed: str, number: int) -> Any:
        style = {"delete": "danger", "price": "primary"}.get(ask.kind, "") if number == 0 else ""
        button = widgets.Button(description=label, button_style=style, layout=_BUTTON)

        def pressed(_button: object) -> None:
            if not self._given.is_set():  # the first press counts, and none behind the end
                self._answer = questions.answer(ask, typed)
                self._given.set()

        button.on_click(pressed)
        return button


def _sum(rentals: tuple[RentalDetail, ...]) -> Block:
    """'2 pods at $0.88/h.' Pretended money stands apart."""
    parts = []
    for simulated, word in ((False, "rented pod"), (True, "simulated pod")):
        kind = [rental for rental in rentals if rental.simulated is simulated]
        if kind:
            rate = usd_text(sum(rental.usd_per_hour for rental in kind))
            parts.append(f"{len(kind)} {word}{'s' if len(kind) > 1 else ''} at {rate}/h")
    return Line(Cell("; ".join(parts) + "." if parts else "Nothing is rented, so nothing is billed."))
