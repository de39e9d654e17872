"""The verbs of renting against a pretended company on a socket: what is offered, planned, kept there, and costs."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from podlab.display.text import text
from podlab.errors import BadArgument, BadSecret, KeyRefused, NotFound, OutOfStock, PodlabError, Refused
from podlab.lab.rent_wish import RentWish
from podlab.lab.rented import public_key
from podlab.lab.renting import resolved
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.renting import Policy
from podlab.sandbox.serve import Running
from podlab.store import Store
from tests.audiences import Silent
from tests.commands.conftest import Say
from tests.lab.rentals import ask

pytestmark = pytest.mark.usefixtures("sandbox")


def test_offers_are_narrowed_and_say_that_they_are_simulated(say: Say) -> None:
    everything = say("pod offers")
    assert everything.simulated and everything.provider == "sandbox" and len(everything.offers) > 20
    cheap = say("pod offers A40, L40S --cloud secure --region EU --max-price 1")
    assert [(row.gpu, row.cloud, row.data_centers) for row in cheap.offers] == [
        ("A40", "secure", ("CA-MTL-1", "EU-SE-1"))
    ]
    large = say("pod offers --min-memory 90GB --sort memory").offers
    assert [row.memory_bytes for row in large] == sorted((row.memory_bytes for row in large), reverse=True)
    assert min(row.memory_bytes for row in large) >= 90 * 10**9
    assert text(cheap).startswith("Simulated: sandbox is a pretended company")


def test_offers_for_a_model_name_the_fewest_gpus(say: Say) -> None:
    audience = Silent()
    found = say("pod offers A5000 H200 --for openai/gpt-oss-120b --cloud secure", audience=audience)
    assert [(row.gpu, row.gpu_count, row.fits) for row in found.offers] == [
        ("RTX A5000", 4, True), ("H200", 1, True)
    ]  # fmt: skip
    assert found.model == "openai/gpt-oss-120b"


def test_a_gpu_that_is_not_offered_names_what_is(say: Say) -> None:
    with pytest.raises(NotFound, match="no GPU called 'A4'"):
        say("pod offers A4")
    with pytest.raises(BadArgument, match="--count 99"):
        say("pod offers --count 99")
    with pytest.raises(BadArgument, match="no amount of dollars"):
        say("pod offers --max-price cheap")


def test_a_plan_is_a_ranked_list_with_a_price_and_reasons(say: Say) -> None:
    """The default preference is A40, A6000, A5000, as autopod had it; nothing is rented and nothing written."""
    found = say("pod plan")
    assert [row.gpu for row in found.candidates if not row.refused] == ["A40", "RTX A6000", "RTX A5000"]
    assert all(row.refused for row in found.candidates[3:])
    assert found.usd_per_hour == pytest.approx(max(row.usd_per_hour for row in found.candidates[:3]))
    assert found.ttl_s == 8 * 3600 and found.cap_usd and found.worst_usd and found.worst
    assert Ledger().entries() == []
    assert "entry point" not in found.worst
    assert "only this computer ends it" in say("pod plan --image vllm/vllm-openai:latest").worst, "nobody knows that"
    narrow = say("pod plan --gpu L40S --ttl 2h --budget off --idle off")
    assert (narrow.budget_usd, narrow.idle_s, narrow.ttl_s) == (None, None, 7200)


def test_a_plan_that_leads_nowhere_says_why_and_fails(say: Say) -> None:
    found = say("pod plan --gpu H200 --max-price 1", code=1)
    assert [row.refused for row in found.candidates if row.gpu == "H200"] == ["$3.596/h is more than $1.000/h"]
    assert "cannot be rented" in text(found)


def test_a_region_that_does_not_exist_is_refused_with_those_that_do(say: Say) -> None:
    with pytest.raises(OutOfStock, match="not in XX") as refused:
        say("pod create lab --gpu A40 --region XX", yes=True)
    assert refused.value.hint.startswith("--region takes a data centre") and "EU-RO-1" in refused.value.hint


def test_a_name_of_several_gpus_is_asked_about_by_the_names_that_people_use(say: Say) -> None:
    audience = Silent(1)
    found = say("pod plan --gpu H100", audience=audience)
    (asked,) = audience.asked
    assert (asked.kind, asked.choices) == ("choice", ("H100 NVL", "H100 PCIe", "H100 SXM"))
    assert {row.gpu for row in found.candidates if not row.refused} <= {"H100 PCIe"}
    with pytest.raises(BadArgument, match="could be several"):
        say("pod plan --gpu H100", audience=Silent(None))


def test_what_the_account_keeps(say: Say) -> None:
    """Volumes cost money, so making one asks for its price; deleting one asks too."""
    assert say("pod volumes").volumes == ()
    with pytest.raises(Refused, match="No volume was rented"):
        say("pod volumes create models EU-RO-1 --size 50", audience=Silent(False))
    audience = Silent(True)
    (made,) = say("pod volumes create models EU-RO-1 --size 50", audience=audience).volumes
    assert (made.name, made.size_gb, made.data_center) == ("models", 50, "EU-RO-1")
    assert audience.asked[0].kind == "price" and "$3.50 a month" in audience.asked[0].detail
    assert "(simulated)" in audience.asked[0].question
    assert say("pod volumes").usd_per_month == pytest.approx(3.5)
    assert Store().words("volumes") == ["models"], "what completion offers from now on"
    with pytest.raises(Refused, match="billed on"):
        say("pod volumes delete models")
    assert say("pod volumes delete models", yes=True).changed == {"volume": made.id}
    with pytest.raises(NotFound, match="no volume 'models'"):
        say("pod volumes delete models")
    with pytest.raises(BadArgument, match="--size 5"):
        say("pod volumes create x EU-RO-1 --size 5")
    assert any(each.public for each in say("pod templates --public").templates)
    assert say("pod registries").registries == () and say("pod keys").keys == ()


def test_an_image_of_ones_own_is_kept_with_a_login_and_a_pod_is_planned_from_it(
    say: Say, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a-token-of-mine-1234\n"))
    (login,) = say("pod registries add hub --user me").registries
    made = "pod templates create mine --image me/image:1 --disk 40 --persistent 50 --port 8888/http --env A=b=c"
    assert "keep the template mine" in text(say(f"{made} --registry hub --dry-run"))
    (template,) = say(f"{made} --registry hub").templates
    assert (template.name, template.image, template.public) == ("mine", "me/image:1", False)
    assert say("pod templates").templates == (template,) and say("pod registries").registries == (login,)
    kept = sandbox.company.assets.own_templates[template.id]
    assert (kept.disk_gb, kept.ports, kept.env, kept.registry) == (40, ("8888/http",), (("A", "b=c"),), login.id)
    assert say("pod plan --template mine --gpu A40").candidates[0].refused == ""
    assert resolved(company("sandbox"), RentWish(provider="sandbox", registry="hub")).registry == login.id
    with pytest.raises(NotFound, match="no registry 'nobody'.*"):
        say("pod plan --registry nobody --gpu A40")

    for wrong, said in (
        ("pod templates create x", "needs an image"),
        ("pod templates create x --image i --env HF_TOKEN=abc", "looks like a secret"),
        ("pod templates create x --image i --port 99999/http", "is no port"),
        ("pod templates create x --image i --persistent 5", "persistent_gb cannot be '5'"),
        ("pod registries add other", "needs a user"),
    ):
        with pytest.raises(PodlabError, match=said):
            say(wrong)
    with pytest.raises(NotFound, match="no registry 'nobody'"):
        say("pod templates create x --image i --registry nobody")
    with pytest.raises(Refused, match="Nothing was deleted"):
        say("pod templates delete mine", audience=Silent(False))
    assert say("pod templates delete mine", yes=True).changed == {"template": template.id}
    assert say("pod registries delete hub", yes=True).changed == {"registry": login.id}
    assert say("pod templates").templates == () and say("pod registries").registries == ()


def test_a_key_is_added_to_the_accounts(say: Say, tmp_path: Path) -> None:
    (own,) = say("pod keys add").keys
    assert own.text == public_key().strip()
    assert say("pod keys add").keys == say("pod keys").keys == (own,)
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    for path, said in ((tmp_path / "private", "no public key"), (tmp_path / "missing", "cannot be read")):
        with pytest.raises(BadArgument, match=said):
            say(f"pod keys add {path}")


def test_the_account_has_a_balance(say: Say) -> None:
    found = say("pod account")
    assert found.simulated and found.account.balance_usd == pytest.approx(25)
    assert "sandbox (simulated)" in text(found)


def rented(name: str = "lab", rental: str = "", **told: str) -> None:
    """A row of the ledger, as a create leaves it."""
    told = {"name": name, "order": f"{name}-x1", "simulated": "yes"} | told
    Ledger().append("rent.ask", f"launch-{name}", **ask(0.5, Policy(budget_usd=2.0), **told))
    Ledger().append("rent.live", f"launch-{name}", rental=rental or f"r-{name}", usd_per_hour="0.5")


def test_costs_are_told_apart_by_pod_model_and_notebook(say: Say) -> None:
    rented("one", model="tiny", notebook="a.ipynb")
    rented("two", model="tiny", notebook="b.ipynb", simulated="no")
    found = say("pod cost")
    assert {(row.of, row.simulated) for row in found.costs} == {("one", True), ("two", False)}
    assert found.total.pods == 1 and found.simulated.pods == 1
    assert {row.of for row in say("pod cost --by notebook --today").costs} <= {"a.ipynb", "b.ipynb"}
    assert [row.pods for row in say("pod cost --by model").costs] == [1, 1], "pretended money is never added to real"
    assert [row.of for row in say("pod cost two").costs] == ["two"]
    shown = text(found)
    assert "Simulated" in shown and "All of it pretended." in shown


def test_what_is_over_is_limited_and_what_may_cost_money_is_not(say: Say) -> None:
    """In a document all of it stands unless a number is given."""
    for number in range(4):
        rented(f"old-{number}")
        for at in (2e9, 2e9 + 100):
            Ledger(now=lambda at=at: at).append("rent.absent", f"launch-old-{number}")  # type: ignore[misc]
        Ledger().append("rent.ended", f"launch-old-{number}")
    rented("lab")
    assert [row.name for row in say("pod list --all").rentals] == ["lab", "old-3", "old-2", "old-1", "old-0"]
    found = say("pod list --all --limit 2")
    assert ([row.name for row in found.rentals], found.limit, found.left_out) == (["lab", "old-3", "old-2"], 2, 2)
    assert [row.name for row in say("pod list --all --limit 0").rentals] == ["lab"]
    cost = say("pod cost --limit 1")
    assert (len(cost.costs), cost.left_out, cost.simulated.pods) == (2, 3, 5), "the sum is of all of them"
    with pytest.raises(BadArgument, match="--limit -1 is no number of rows"):
        say("pod list --all --limit -1")


def test_extending_asks_where_it_may_cost_more(say: Say) -> None:
    rented()
    with pytest.raises(BadArgument, match="Nothing is to be extended"):
        say("pod extend lab")
    with pytest.raises(Refused, match="keeps its limits"):
        say("pod extend lab --budget 3", audience=Silent(False))
    audience = Silent(True)
    assert "$5.00" in say("pod extend lab --budget 3", audience=audience).text
    assert [question.kind for question in audience.asked] == ["price"]
    assert "when it was idle for 20 min" in say("pod extend lab --idle 20m").text, "less needs no yes"
    with pytest.raises(BadArgument, match="--idle cannot be 'soon'"):
        say("pod extend lab --idle soon")
    for line in ("--ttl 0", "--ttl off", "--budget 0", "--budget -1", "--budget nan", "--ttl 99999d"):
        with pytest.raises(BadArgument, match=line.split()[0]):
            say(f"pod extend lab {line}", yes=True)
    assert say("pod extend lab --budget 1 --dry-run").would[0].startswith("change what ends lab")


def test_a_verb_about_money_means_nothing_for_a_pod_of_ones_own(say: Say) -> None:
    for line in ("pod terminate local", "pod cost local", "pod extend local --ttl 1h", "pod logs local"):
        with pytest.raises(BadArgument, match="local is this computer: nothing of it is rented"):
            say(line)
    with pytest.raises(NotFound, match="No rented pod is called 'lb'") as caught:
        rented()
        say("pod terminate lb")
    assert caught.value.hint == "Did you mean lab?"


def test_terminate_asks_and_is_not_taken_for_proof(say: Say) -> None:
    """A pod the company has never heard of is asked for all the same; the row stays open until it is proven gone."""
    rented()
    audience = Silent(False)
    with pytest.raises(Refused, match="bill goes on"):
        say("pod terminate lab", audience=audience)
    assert audience.asked[0].kind == "delete" and "$0.50 an hour" in audience.asked[0].detail
    audience = Silent(True)
    (left,) = say("pod terminate lab --no-wait", audience=audience).rentals
    assert (left.state, left.ended_at) == ("ending", None)
    assert "not proven yet" in audience.notices[-1].text
    assert say("pod terminate --all --dry-run").would == ("end lab at sandbox, and prove it",)
    with pytest.raises(BadArgument, match="say different things"):
        say("pod terminate lab --all")


def test_an_orphan_of_ours_is_told_and_another_persons_pod_is_left_alone(say: Say, sandbox: Running) -> None:
    from podlab.providers.companies import company
    from podlab.renting import Order

    made = company("sandbox").create(Order("lab-x1", "NVIDIA A40", 1, "secure", image="runpod/base"))
    company("sandbox").create(Order("somebody", "NVIDIA A40", 1, "secure", image="runpod/base"))
    rented("lab", made.id)
    found = say("pod orphans", code=1)
    assert {(row.name, row.owner) for row in found.orphans} == {("lab", "ours"), ("somebody", "foreign")}
    assert "podlab pod claim lab" in next(row.fix for row in found.orphans if row.owner == "ours")
    assert "never touches" in next(row.found for row in found.orphans if row.owner == "foreign")
    assert found.asked == ("sandbox",)
    assert "1 of ours is not where it should be" in text(found)


def test_the_log_of_a_pod_is_its_companys(say: Say) -> None:
    from podlab.providers.companies import company
    from podlab.renting import Order

    made = company("sandbox").create(Order("lab-x1", "NVIDIA A40", 1, "secure", image="runpod/base"))
    rented("lab", made.id)
    found = say("pod logs lab --lines 5")
    assert found.simulated and found.lines and all(line.source in ("container", "system") for line in found.lines)
    assert found.lines[0].text in text(found)


def test_without_a_key_every_verb_says_what_to_do(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    with pytest.raises(BadSecret) as caught:
        say("pod offers --provider runpod")
    assert "podlab init" in caught.value.hint
    with pytest.raises(NotFound, match="no provider 'sandbx'"):
        say("pod plan --provider sandbx")
    with pytest.raises(BadArgument, match="local rents nothing"):
        say("pod create --provider local --dry-run")
    (Path(os.environ["PODLAB_HOME"]) / "sandbox.json").unlink()
    for provider, said in (("runpod", "podlab init"), ("local", "local rents nothing")):
        monkeypatch.setenv("PODLAB_PROVIDER", provider)
        found = text(say("pod orphans", code=1))
        assert "not known" in found and said in found, "that nobody was asked clears nobody"


def test_a_key_that_is_refused_says_so(say: Say, sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_nobodys-key-0123456789")
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    with pytest.raises(KeyRefused) as caught:
        say("pod offers --provider runpod")
    assert "environment variable" in caught.value.hint, "another kept one would not help"
    report = say("pod doctor --provider runpod", code=1)
    failed = {check.name: check for check in report.checks if check.state == "failed"}
    assert "key" in failed and failed["key"].fix
    assert "nobodys" not in text(report)


def test_the_doctor_looks_at_everything(say: Say) -> None:
    report = say("pod doctor")
    states = {check.name: check.state for check in report.checks}
    assert report.ok and report.simulated
    assert list(states) == [
        "configuration", "podlab", "key", "key scope", "balance", "spending limit", "interface", "clock", "SSH client",
        "SSH key", "port 22", "ledger", "keeper", "orphans",
    ]  # fmt: skip
    assert states["port 22"] == "skipped" and states["clock"] == "ok" and states["ledger"] == "ok"
    assert all(check.fix for check in report.checks if check.state == "warning")


def test_the_doctor_goes_on_where_a_check_breaks(say: Say) -> None:
    place = os.path.join(os.environ["PODLAB_HOME"], "ledger.jsonl")
    with open(place, "w") as ledger:
        ledger.write('{"broken": true}\n{"broken": true}\n')
    with open(os.path.join(os.environ["PODLAB_HOME"], "config.toml"), "w") as config:
        config.write("[rent]\nttll = '2h'\n")
    report = say("pod doctor", code=1)
    states = {check.name: check.state for check in report.checks}
    assert (states["ledger"], states["configuration"], states["key"]) == ("failed", "failed", "ok")
    assert "pods of sandbox cannot be rented safely" in text(report)
