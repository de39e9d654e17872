"""What a person asks to be rented: what cannot be is refused with the option, the value and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from podlab import settings
from podlab.errors import BadArgument
from podlab.lab.rent_wish import RentWish, wish_from, wish_of


def value(name: str) -> Any:
    return settings.setting(name).default


def test_what_is_left_open_has_the_settings_value() -> None:
    wish = wish_of(value)

    assert (wish.provider, wish.disk_gb, wish.cloud, wish.count) == ("runpod", 40, "secure", None)
    assert wish.preferences == ("A40", "RTX A6000", "RTX A5000")
    assert (wish.ttl_s, wish.idle_s, wish.budget_usd, wish.lease_s) == (8 * 3600, 1800, 10.0, 600)


def test_options_are_read_as_a_person_writes_them() -> None:
    wish = wish_of(
        value, gpu=["A40, L4", "RTX 4090"], region=["eu", "us-tx"], disk="80GB", port=["8000", "9000/tcp"],
        max_price="$0.60", budget="off", ttl="2h", idle="off", wait="30m",
    )  # fmt: skip

    assert wish.gpus == ("A40", "L4", "RTX 4090")
    assert wish.regions == ("EU", "US-TX")
    assert wish.ports == ("8000/http", "9000/tcp")
    assert (wish.disk_gb, wish.max_usd_per_hour, wish.budget_usd) == (80, 0.6, None)
    assert (wish.ttl_s, wish.idle_s, wish.wait_s) == (7200, None, 1800)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "no name"}, "'no name'"),
        ({"spot": True}, "--spot: there are no spot pods"),
        ({"wait": "1h"}, "--wait has no price"),
        ({"count": 0}, "--count 0"),
        ({"region": ["somewhere far away"]}, "--region 'SOMEWHERE FAR AWAY'"),
        ({"cuda": "twelve"}, "--cuda 'twelve'"),
        ({"image": "with space"}, "--image 'with space'"),
        ({"image": "a/b:c", "template": "t"}, "--image and --template"),
        ({"volume": "v", "persistent": "20"}, "--volume and --persistent"),
        ({"persistent": "5"}, "--persistent 5"),
        ({"disk": "lots"}, "--disk cannot be 'lots'"),
        ({"mount": "relative"}, "--mount 'relative'"),
        ({"port": ["http"]}, "--port 'http/http'"),
        ({"port": ["22/tcp"]}, "--port 22/tcp"),
        ({"port": ["80", "80/http"]}, "one port twice"),
        ({"port": [str(port) for port in range(1, 12)]}, "--port is given"),
        ({"env": ["NOVALUE"]}, "--env 'NOVALUE'"),
        ({"env": ["HF_TOKEN=hf_x"]}, "--env HF_TOKEN looks like a secret"),
        ({"env": ["AWS_ACCESS_KEY_ID=x"]}, "looks like a secret"),
        ({"env": ["DB_PASS=x"]}, "looks like a secret"),
        ({"env": ["MODE=a", "MODE=b"]}, "--env names MODE twice"),
        ({"host_key": "nonsense"}, "is not a host key's fingerprint"),
        ({"env": ["RUNPOD_POD_ID=x"]}, "--env RUNPOD_POD_ID is podlab's or the provider's own"),
        ({"env": ["PUBLIC_KEY=x"]}, "--env PUBLIC_KEY"),
        ({"ttl": "soon"}, "--ttl cannot be 'soon'"),
        ({"budget": "a lot"}, "--budget cannot be 'a lot'"),
        ({"lease": "off"}, "--lease"),
        ({"cloud": "cumulus"}, "--cloud cannot be 'cumulus'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_option_and_a_fix(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument) as refused:
        wish_of(value, **options)

    assert said in refused.value.message
    assert refused.value.hint


def test_names_that_only_sound_like_a_secret_are_none() -> None:
    env = ["TOKENIZERS_PARALLELISM=false", "MAX_TOKENS=512", "PASS_THROUGH=1", "AUTHOR=me"]
    assert wish_of(value, env=env).env == tuple(env)


def test_a_secret_is_not_quoted() -> None:
    with pytest.raises(BadArgument) as refused:
        wish_of(value, env=["MY_API_KEY=sk-canary-4711"])

    assert "canary" not in " ".join(refused.value.lines())


def test_a_known_secret_is_refused_by_its_value_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The company shows a pod's environment in every list of the account."""
    monkeypatch.setenv("RUNPOD_API_KEY", "rp_canary-4711-0815")
    with pytest.raises(BadArgument, match="--env MODE holds the value of RUNPOD_API_KEY") as refused:
        wish_of(value, env=["MODE=--login=rp_canary-4711-0815"])
    assert "canary" not in " ".join(refused.value.lines()) and "podlab secret set" in refused.value.hint
    with pytest.raises(BadArgument, match="holds what looks like a token"):
        wish_of(value, env=["SOURCE=https://user:ghp_canary0canary0canary0@host"])


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04", "12.8"),
        ("runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404", "12.8"),
        ("vllm/vllm-openai:latest", None),
    ],
)
def test_the_image_says_which_cuda_it_needs(image: str, cuda: str | None) -> None:
    assert RentWish(image=image).needed_cuda == cuda
    assert RentWish(image=image, min_cuda="13.0").needed_cuda == "13.0"


def test_a_wish_is_kept_as_text_and_read_back() -> None:
    wish = RentWish(name="lab", gpus=("A40",), env=("A=b c",), ports=("8000/http",), ttl_s=None)

    assert wish_from(wish.text()) == wish
    assert wish_from("from another version") is None
    assert wish_from('{"name": "lab", "something": "new"}') == RentWish(name="lab")
