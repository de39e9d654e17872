"""The extension in a real kernel, over the kernel's own protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebook.kernel import Kernel, Output


def test_loading_again_is_harmless_and_reload_brings_it_back(kernel: Kernel) -> None:
    assert kernel.run("%load_ext podlab").error is None
    assert kernel.run("%unload_ext podlab").error is None
    gone = kernel.run("%pod echo a")
    assert gone.reply["status"] == "error"
    assert kernel.complete("%pod li")[0] != ["list"]
    assert "Podlab" not in kernel.run("%config").stream("stdout")
    assert kernel.run("%load_ext podlab").error is None
    assert kernel.run("%pod echo a").result is not None
    assert kernel.run("%reload_ext podlab").error is None
    assert kernel.run("%pod echo a").result is not None


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    import os

    root = Path(__file__).parents[2]
    heavy = ("ipywidgets", "anywidget", "plotly", "paramiko", "runpod", "openai", "numpy", "httpx2")
    with Kernel(cwd=str(root), env={**os.environ, "PYTHONPATH": str(root)}) as fresh:
        fresh.run("import sys; before = set(sys.modules)")
        assert fresh.run("%load_ext podlab").error is None
        loaded = fresh.value("sorted(set(sys.modules) - before)")
        assert not {name.partition(".")[0] for name in loaded} & set(heavy)
        assert fresh.run("%podlab config show").result is not None
        loaded = fresh.value("sorted(set(sys.modules) - before)")
        assert not {name.partition(".")[0] for name in loaded} & set(heavy)


def test_what_was_found_stands_above_the_error_in_the_saved_notebook(kernel: Kernel) -> None:
    said = kernel.run("%pod found")
    assert said.error is not None and said.error["ename"] == "PodlabError"
    (shown,) = said.shown
    assert "the disk is full" in shown["text/plain"] and "the disk is full" in shown["text/html"]


def test_a_value_is_html_and_text_and_can_be_assigned_or_silenced(kernel: Kernel) -> None:
    shown = kernel.run("%podlab config show").result
    assert shown is not None
    assert '<th scope="col"' in shown["text/html"]
    assert shown["text/plain"].startswith("setting")
    assert kernel.run("x = %podlab config show").outputs == []
    assert kernel.value("[row.name for row in x][:2]") == ["pod", "chat.system"]
    assert kernel.run("%podlab config show ;").outputs == []
    assert kernel.value("x.to_dict()['settings'][0]['name']") == "pod"


def _lines(error: dict[str, object]) -> list[str]:
    traceback = error["traceback"]
    assert isinstance(traceback, list)
    return [line for entry in traceback for line in entry.splitlines()]


@pytest.mark.parametrize(
    "code, name",
    [
        ("%pod boom", "PodlabError"),
        ("%pod lst", "BadArgument"),
        ("%model start no-such-model", "NotFound"),
        ("%pod output --status 3", "CommandFailed"),
        ("%pod show nowhere", "NotFound"),
        ("%%pod list\nx", "BadArgument"),
        ("%pod question", "Refused"),
    ],
)
def test_errors_are_real_errors_of_at_most_three_lines(kernel: Kernel, code: str, name: str) -> None:
    ran = kernel.run(code)
    assert ran.reply["status"] == "error"
    assert ran.error is not None
    assert ran.error["ename"] == name
    assert 1 <= len(_lines(ran.error)) <= 3
    assert "\x1b" not in "".join(_lines(ran.error))


def test_a_stage_shows_after_a_second_and_leaves_one_line(kernel: Kernel) -> None:
    quick = kernel.run("_ = %pod stages --seconds 0.2")
    assert quick.shown == []
    slow = kernel.run("_ = %pod stages --seconds 1.2")
    assert len(slow.shown) == 1
    assert slow.shown[0]["text/plain"].startswith("Took 2.")
    assert "Stage one 1." in slow.shown[0]["text/plain"]
    updates = slow.times("display_data") + slow.times("update_display_data")
    assert 3 <= len(updates) <= 10 * (updates[-1] - updates[0]) + 3
    said = [content["data"] for _, kind, content in slow.messages if kind == "update_display_data"]
    assert any("<progress" in bundle["text/html"] and "%" in bundle["text/plain"] for bundle in said)
    assert kernel.run("%config Podlab.stages = False\n_ = %pod stages --seconds 0.7").shown == []
    kernel.run("%config Podlab.stages = True")


def test_an_answer_grows_in_one_place_and_is_exact_at_its_end(kernel: Kernel) -> None:
    ran = kernel.run("%pod answer --seconds 1.5 --pieces 60")
    assert ran.error is None
    text = "# Hello\n\n" + "".join(f"piece **{number}**, " for number in range(60))
    assert ran.outputs == [ran.outputs[0]]
    (bundle,) = ran.shown
    assert bundle["text/plain"] == text
    assert "<strong>59</strong>" in bundle["text/html"]
    assert "<details><summary" in bundle["text/html"]
    assert "tiny, 60 tokens, 42.0 tokens/s" in bundle["text/html"]
    updates = ran.times("display_data") + ran.times("update_display_data")
    assert 5 <= len(updates) <= 12 * (updates[-1] - updates[0]) + 4
    assert all(
        text.startswith(content["data"]["text/plain"])
        for _, kind, content in ran.messages
        if kind in ("display_data", "update_display_data")
    )


def test_the_value_of_an_answer_shows_when_it_is_asked_for_later(kernel: Kernel) -> None:
    ran = kernel.run("r = %pod answer --text Hello.")
    assert [bundle["text/plain"] for bundle in ran.shown] == ["Hello."]
    later = kernel.run("r")
    assert later.result is not None
    assert later.result["text/plain"] == "Hello."
    assert kernel.value("r.usage.prompt_tokens") == 5


def test_a_broken_answer_keeps_what_had_come(kernel: Kernel) -> None:
    ran = kernel.run("%pod answer --fail")
    assert ran.error is not None
    assert ran.shown[0]["text/plain"].startswith("# Hello\n\npiece")
    assert "failed" in ran.shown[0]["text/html"]
    assert "aria-busy" not in ran.shown[0]["text/html"]


def test_output_comes_as_streams(kernel: Kernel) -> None:
    ran = kernel.run("%pod output")
    assert ran.stream("stdout") == "one\ntwo\nthree"
    assert ran.stream("stderr") == "bad\n"
    assert ran.result is None


def test_a_question_is_answered_at_the_prompt_or_refused(kernel: Kernel) -> None:
    assert kernel.run("%pod question", stdin="yes").result is not None
    for answer in ("", "no", "nope"):
        refused = kernel.run("%pod question", stdin=answer)
        assert refused.error is not None
        assert refused.error["evalue"] == "The answer was False."
    nobody = kernel.run("%pod question")
    assert nobody.error is not None
    assert nobody.error["evalue"] == "The answer was None."
    assert kernel.run("%pod question --yes").result is not None
    assert kernel.run("%pod question --yes --key").error is not None
    warned = kernel.run("%pod question --yes").shown[0]
    assert warned["text/plain"] == "Warning: Look here."


def test_an_interrupt_keeps_what_was_said_and_fails_the_cell(kernel: Kernel) -> None:
    ran = kernel.run("%pod interrupted", interrupt_at="word3")
    assert ran.error is not None
    assert ran.error["ename"] == "Interrupted"
    assert _lines(ran.error) == ["Interrupted."]
    assert ran.shown[0]["text/plain"].startswith("word0 word1")
    assert "interrupted" in ran.shown[0]["text/html"]
    assert kernel.run("%pod echo a").result is not None


def _after(ran: Output) -> list[str]:
    return [thread for thread in ran.stream("stdout").splitlines() if thread.startswith("podlab")]


def test_no_thread_is_left_behind(kernel: Kernel) -> None:
    kernel.run("_ = %pod stages --seconds 0.6\n_ = %pod answer")
    ran = kernel.run("import threading\nfor thread in threading.enumerate(): print(thread.name)")
    assert _after(ran) == []


def test_completion_has_types_and_spans(kernel: Kernel) -> None:
    matches, kinds, span = kernel.complete("%pod li")
    assert matches == ["list"]
    assert kinds == {"list": "verb"}
    assert span == (5, 7)
    matches, kinds, _ = kernel.complete("x = %pod use lo")
    assert matches == ["local"]
    assert kinds == {"local": "pod"}
    matches, kinds, span = kernel.complete("a = 1\n%%pod run --lang", len("a = 1\n%%pod run --lang"))
    assert "--lang" not in matches
    matches, kinds, span = kernel.complete("%%pod run --la\necho", len("%%pod run --la"))
    assert matches == ["--lang"]
    assert kinds == {"--lang": "option"}
    assert span == (10, 14)


def test_the_question_mark_pages_the_help(kernel: Kernel) -> None:
    (payload,) = kernel.run("%pod?").reply["payload"]
    assert "List the pods" in payload["data"]["text/plain"]


def test_config_takes_effect_at_once(kernel: Kernel) -> None:
    kernel.run("%config Podlab.max_tokens = 7")
    assert kernel.run("%podlab config show chat.max_tokens").result["text/plain"].split()[5:7] == ["7", "flag"]  # type: ignore[index]
    kernel.run("%config Podlab.max_tokens = None")
    assert "Podlab.temperature=<Float>" in kernel.run("%config Podlab").stream("stdout")
