"""Questions of a cell as a real kernel puts them: buttons while they are open, and a sentence when they are over."""

from __future__ import annotations

from typing import Any

import pytest

from podlab.notebook.buttons import VIEW
from tests.notebook.kernel import Kernel, Output


def _states(ran: Output) -> list[dict[str, Any]]:
    """What each question's buttons were made of."""
    opened = [content["data"]["state"] for _, kind, content in ran.messages if kind == "comm_open"]
    return [state for state in opened if "answers" in state]


def _views(ran: Output) -> int:
    return sum(kind == "display_data" and VIEW in content["data"] for _, kind, content in ran.messages)


def _texts(ran: Output) -> list[str]:
    return [bundle["text/plain"] for bundle in ran.shown]


def test_a_question_has_buttons_while_it_is_open(kernel: Kernel) -> None:
    """What a button would type is y or n; afterwards a sentence stands there, which a saved notebook can show."""
    ran = kernel.run("%pod question", stdin="y")
    (state,) = _states(ran)
    assert (state["labels"], state["answers"]) == (["Yes", "No"], ["y", "n"])
    assert (state["prompt"], state["first"], state["escape"]) == ("Really? [y/N] ", "end", True)
    assert _views(ran) == 1 and not any(VIEW in output.get("data", {}) for output in ran.outputs)
    assert "Answered: Yes." in _texts(ran)
    closed = {content["comm_id"] for _, kind, content in ran.messages if kind == "comm_close"}
    assert closed == {content["comm_id"] for _, kind, content in ran.messages if kind == "comm_open"}


def test_a_price_shows_what_it_rests_on_and_says_what_a_yes_buys(kernel: Kernel) -> None:
    ran = kernel.run("%pod agree", stdin="n")
    (state,) = _states(ran)
    assert state["labels"] == ["Rent for $0.406/h", "No"] and state["first"] == "go"
    assert "Rent it?\n  price  $0.406/h\n  cap    $0.51 at most" in _texts(ran)
    assert "Answered: No." in _texts(ran)
    assert ran.error is not None and ran.error["ename"] == "Refused"


def test_a_host_key_is_a_question_of_its_own(kernel: Kernel) -> None:
    """A yes to the price is none to the key, whether it was given in advance or by a button."""
    answers = iter(["y", "n"])
    ran = kernel.run("%pod agree", stdin=lambda: next(answers))
    assert [state["labels"][0] for state in _states(ran)] == ["Rent for $0.406/h", "It is its key"]
    assert ran.result is not None and "price True, key False" in ran.result["text/plain"]
    ran = kernel.run("%pod agree --yes", stdin="n")
    assert [state["labels"][0] for state in _states(ran)] == ["It is its key"]
    assert ran.result is not None and "price True, key False" in ran.result["text/plain"]


def test_choices_are_buttons_and_a_text_has_one_that_keeps_it(kernel: Kernel) -> None:
    """A name is typed: the input box stays beside the button."""
    answers = iter(["2", ""])
    ran = kernel.run("%pod pick", stdin=lambda: next(answers))
    choice, text = _states(ran)
    assert (choice["labels"], choice["answers"], choice["escape"]) == (["1. one", "2. two"], ["1", "2"], False)
    assert (text["labels"], text["answers"], choice["alone"], text["alone"]) == (["Keep lab"], [""], True, False)
    assert "Answered: two." in _texts(ran) and _texts(ran)[-2:] == ["Which name?", "Answered: lab."]
    assert ran.result is not None and "chosen 1, named lab" in ran.result["text/plain"]


def test_nobody_is_asked_where_nobody_is(kernel: Kernel) -> None:
    """A run without a person (nbconvert, papermill, nbval) allows no input: no button is drawn, and the verb refuses
    and names the option that would have answered."""
    ran = kernel.run("%pod agree")
    assert _states(ran) == [] and _texts(ran) == []
    assert ran.error is not None and "--yes" in "".join(ran.error["traceback"])


def test_an_interrupt_ends_a_question_and_its_buttons(kernel: Kernel) -> None:
    ran = kernel.run("%pod agree", stdin=kernel.manager.interrupt_kernel)
    assert ran.error is not None and ran.error["ename"] == "Interrupted"
    assert _views(ran) == 1 and "Not answered, so not agreed to." in _texts(ran)
    assert any(kind == "comm_close" for _, kind, _ in ran.messages)
    assert kernel.value("[t.name for t in __import__('threading').enumerate() if t.name == 'podlab-buttons']") == []


def test_an_answer_to_a_question_that_is_over_answers_nothing(kernel: Kernel) -> None:
    """A button that is pressed too late: its answer lies there when the next question comes, and is thrown away."""
    kernel.run("%pod agree", stdin=kernel.manager.interrupt_kernel)
    kernel.client.input("y")
    ran = kernel.run("%pod agree", stdin="n")
    assert ran.error is not None and ran.error["ename"] == "Refused"


def test_the_page_is_told_that_the_kernel_still_waits(kernel: Kernel) -> None:
    """Else a page would not know that the kernel was started anew, and would offer what nobody hears."""

    ran = kernel.run("%pod question", stdin="y", answer_at="'beat'")
    assert "Answered: Yes." in _texts(ran)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("%config Podlab.buttons = False", "%config Podlab.buttons = True"),
        ("__vsc_ipynb_file__ = 'a.ipynb'", "del __vsc_ipynb_file__"),
    ],
    ids=["told", "VS Code"],
)
def test_the_prompt_does_where_buttons_are_not_wanted_or_not_possible(kernel: Kernel, before: str, after: str) -> None:
    kernel.run(before)
    ran = kernel.run("%pod agree", stdin="y")
    kernel.run(after)
    assert _states(ran) == [] and ran.error is None
    assert any("price  $0.406/h" in text for text in _texts(ran))
