"""Each thing RunPod says no with is an error of its own, and says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podlab import secrets
from podlab.errors import (
    ApiRetired,
    BadOrder,
    KeyRefused,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    OutOfFunds,
    OutOfStock,
    PodlabError,
    ProviderUnavailable,
    RateLimited,
    WrongState,
)
from podlab.http import Answer
from podlab.providers.runpod_errors import STATUSES, TEXTS, refusal, retry_after_s
from podlab.secrets import Secret


def said(status: int, detail: str = "", *, errors: tuple[str, ...] = (), **headers: str) -> Answer:
    body = {"title": "No", "status": status, "detail": detail} | ({"errors": list(errors)} if errors else {})
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


def error_of(answer: Answer, *, write: bool = True) -> PodlabError:
    return refusal(answer, label="RunPod", provider="runpod", doing="create pod lab-1a2b", write=write)


CERTAIN = [
    (said(400, "There are no longer any instances available with the requested specifications. Please refresh and "
               "try again."), OutOfStock),
    (said(400, "There are no longer any instances available with enough disk space."), OutOfStock),
    (said(400, "There are no instances available with the request specifications"), OutOfStock),
    (said(400, "create pod: There are no instances currently available"), OutOfStock),
    (said(400, "There are not enough free GPUs on the host machine to start this pod."), OutOfStock),
    (said(400, "mounts.persistent and mounts.network are mutually exclusive"), BadOrder),
    (said(400, "Your balance is too low to rent this pod"), OutOfFunds),
    (said(400, "This would exceed your spend limit"), OutOfFunds),
    (said(402, "Insufficient funds"), OutOfFunds),
    (said(402), OutOfFunds),
    (said(401, "Unauthorized request, please check your API key."), KeyRefused),
    (said(403, "access denied"), NotAllowed),
    (said(404, "pod not found"), NotFound),
    (said(405, "The requested method is not allowed for this path."), ApiRetired),
    (said(409, "action stop is not valid for status EXITED"), WrongState),
    (said(410, "gone"), ApiRetired),
    (said(422, "Request validation failed.", errors=("$.gpu: missing property 'id'",)), BadOrder),
    (said(429, "rate limit exceeded for the minute window", retry_after="12"), RateLimited),
]  # fmt: skip
OPEN = [
    said(500, "internal error"),
    said(500, "There are no longer any instances available with the requested specifications"),
    said(502), said(503), said(504), said(408, "timeout"), said(418, "teapot"),
    said(400, "Something went wrong. Please try again later or contact support."),
    said(200, "Something went wrong. Please try again later or contact support."),
    Answer(404, {}, b"<html>not here</html>"), Answer(401, {}, b"<html>log in to this network</html>"),
    Answer(400, {}, b""), Answer(404, {}, b""), Answer(404, {}, b"[]"), Answer(302, {}, b""),
]  # fmt: skip
"""What may have been done all the same, or was said by something in between."""


@pytest.mark.parametrize(("answer", "kind"), CERTAIN)
@pytest.mark.parametrize("write", [True, False])
def test_a_refusal_is_an_error_of_its_own(answer: Answer, kind: type[PodlabError], write: bool) -> None:
    error = error_of(answer, write=write)

    assert type(error) is kind
    assert str(answer.status) in error.message and "create pod lab-1a2b" in error.message
    assert error.hint or kind is BadOrder
    assert getattr(error, "status", answer.status) == answer.status


def test_the_sandbox_sends_nobody_to_the_page_of_a_company() -> None:
    for answer, _ in CERTAIN:
        error = refusal(answer, label="The sandbox (simulated)", provider="sandbox", doing="list pods", write=False)
        assert "runpod" not in error.hint.lower() and "simulated" in error.message


def test_the_cases_above_cover_the_table() -> None:
    assert {kind for _, kind in CERTAIN} >= set(STATUSES.values()) | {kind for _, kind in TEXTS}
    assert {answer.status for answer, _ in CERTAIN} >= set(STATUSES)


@pytest.mark.parametrize("answer", OPEN)
def test_what_leaves_it_open_is_unknown_for_a_write_and_nothing_for_a_read(answer: Answer) -> None:
    assert type(error_of(answer, write=True)) is OutcomeUnknown
    assert type(error_of(answer, write=False)) is ProviderUnavailable


def test_what_stands_before_the_api_turns_away_with_its_own_page() -> None:
    """Cloudflare's 1010 for a program it does not know, and its own limit."""
    banned = error_of(Answer(403, {}, b"<html><title>Access denied | error code: 1010</title></html>"))
    often = error_of(Answer(429, {}, b"<html>slow down</html>"))

    assert type(banned) is NotAllowed and "before it reached" in banned.hint and "1010" in banned.message
    assert type(often) is RateLimited


def test_a_bad_body_names_its_fields() -> None:
    error = error_of(said(422, "Request validation failed.", errors=("$.gpu.id: missing", "$: 'bogus' not allowed")))

    assert isinstance(error, BadOrder)
    assert error.fields == ("$.gpu.id: missing", "$: 'bogus' not allowed") and "bogus" in error.hint


def test_graphql_says_its_errors_as_objects() -> None:
    error = error_of(Answer(200, {}, b'{"errors": [{"message": "Cannot query field x"}]}'), write=False)

    assert type(error) is ProviderUnavailable and "Cannot query field x" in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0), ({"retry-after": "0"}, 1.0), ({"retry-after": "99999999"}, 86400.0),
        ({"retry-after": "soon"}, 60.0), ({"retry-after": "²"}, 60.0), ({}, 60.0), ({"retry-after": "-5"}, 60.0),
        ({"ratelimit": '"minute";r=0;t=31, "hour";r=2800;t=1812'}, 31.0),
        ({"ratelimit": '"minute";r=0;t=31, "hour";r=0;t=1812'}, 1812.0),
    ],
)  # fmt: skip
def test_how_long_to_stay_away(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(Answer(429, headers, b"")) == seconds


def test_a_date_says_how_long_to_stay_away() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert 60 < retry_after_s(Answer(429, {"retry-after": at}, b"")) <= 100


def test_an_error_repeats_no_secret_and_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    key = Secret("rpa_CANARY0123456789")
    error = error_of(said(401, f"key {key.reveal()}\n is\x00 wrong " + "x" * 5000, errors=(key.reveal(),)))

    assert key.reveal() not in error.message + error.hint and "********" in error.message
    assert len(error.message) < 500 and "\n" not in error.message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no failure
@given(
    st.integers(min_value=100, max_value=599),
    st.binary(max_size=200) | st.sampled_from([b"[" * 90_000, b"{}", b"<<<<>"]),
    st.booleans(),
)
def test_any_answer_is_an_error_of_ours(status: int, content: bytes, write: bool) -> None:
    error = error_of(Answer(status, {"retry-after": "x"}, content), write=write)

    assert isinstance(error, PodlabError)
    assert "\n" not in error.message
    assert not (write and type(error) is ProviderUnavailable) and not (type(error) is OutcomeUnknown and not write)


json_leaf = st.none() | st.integers() | st.text(max_size=20) | st.floats()


@given(
    st.integers(min_value=100, max_value=599),
    st.dictionaries(
        st.sampled_from(["title", "detail", "message", "error", "errors", "status"]),
        json_leaf | st.lists(json_leaf | st.dictionaries(st.just("message"), json_leaf, max_size=1), max_size=3),
    ),
)
def test_any_document_is_an_error_of_ours(status: int, document: dict[str, object]) -> None:
    assert isinstance(error_of(Answer(status, {}, json.dumps(document).encode())), PodlabError)
