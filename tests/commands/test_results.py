"""Documents: JSON for every value, secrets masked, and field names that are a promise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from podlab import renting, secrets, types
from podlab.catalog.fit import GpuParts
from podlab.commands import rent_results, results
from podlab.commands.results import document, rows
from podlab.loadtest import Level, Spread
from podlab.secrets import MASK, Secret
from podlab.types import (
    Endpoint,
    EndpointState,
    JobRow,
    Message,
    Pod,
    PodState,
    PodStatus,
    SshAddress,
    TunnelRow,
    Usage,
)

POD = Pod("lab", "p1", "ssh", SshAddress("gpu.example", "me", 2222, ("~/.ssh/id",)), "/models")
STATUS = PodStatus(POD, PodState.REACHABLE, 1.5, "fine", True)
ENDPOINT = Endpoint("e1", "tiny", "lab", "tiny", "llamacpp", EndpointState.READY, gpus=(0, 1))
MODEL = results.ModelRow("tiny", "A small one.", "llamacpp", "built in", 3, 4, 5, "Apache-2.0")
RECIPE = results.RecipeRow(2, ("H100",), "vllm", 2, 1, 8192, ("--x",), {"A": "1"}, True, "quick", "https://example.org")
GPU = types.GpuSample(0, "NVIDIA L4", processes=(types.GpuProcess(7, 100, "python", "tiny"),))
SAMPLE = types.PodSample("lab", 1.5, "nvml", (GPU,), types.HostSample(12.5), "570.86", "12.8")
IMPORTED = results.ImportRow("lab", "ssh me@gpu.example", "added")
LEVEL = Level(4, None, 8, 1, 2.0, 3.5, 28.0, 56.0, 40, 56, 3.0, Spread(0.1, 0.1, 0.2, 0.3, 0.3))
PARTS = GpuParts(0, "NVIDIA L4", 24, 20, 18, 8, 1, 2, 7, 6)
TRIED = types.Tried("tiny", "llamacpp", "cpu", "works", "lab", 1.5, 300.0, 0.1, (types.Check("health", "ok"),))
FOREIGN = types.ForeignProcess("lab", 0, 4711, 100, "python")
FREED = types.FreedMemory((0,), 100, 100)
JOB = JobRow("j-1", "lab", "running", "ls", 1.0, None)
SETTING = results.SettingRow("pod", "local", "default", "the pod")

DOWNLOAD = types.DownloadRow("d-1", "lab", "hf:a/b", "done", files=(types.DownloadFile("m", 1, 2),))
STORED = types.StoredModel("hf:a/b", "lab", "/m", "gguf", "whole", 5, 1.0, files=(types.WeightFile("m", "/m", 5),))
VERIFIED = types.VerifiedFile("m", "/m", "ok")
DISK = types.ModelDisk("lab", "/m", 5, 6, 7)
OFFER = rent_results.OfferRow("A40", "NVIDIA A40", 1, "secure", 0.44, 48, "high", ("EU-RO-1",), True, "It fits.")
CANDIDATE = rent_results.CandidateRow("A40", "NVIDIA A40", 1, "secure", 0.45, "none", ("EU-RO-1",), "no stock now")
RENTAL = rent_results.RentalDetail("lab", "l1", "sandbox", True, "running")
COST = rent_results.CostRow("lab", 0.1, 0.2, 0.3, 0.4, simulated=True)
ORPHAN = rent_results.OrphanRow("lab", "sandbox", True, "ours", "running", "it is in no list of pods here")
VALUES: dict[str, Any] = {
    "HubModelList": results.HubModelList((types.HubModel("a/b", 3),), "lab"),
    "DownloadDetail": results.DownloadDetail(DOWNLOAD, STORED),
    "DownloadList": results.DownloadList((DOWNLOAD,), (STATUS,)),
    "FileList": results.FileList((STORED,), "lab"),
    "VerifyReport": results.VerifyReport("hf:a/b", "lab", True, (VERIFIED,), 5, 0.1),
    "DiskUsage": results.DiskUsage(DISK, (STORED,)),
    "CacheQuota": results.CacheQuota(DISK, ("hf:a/b",)),
    "Done": results.Done("It is done.", {"pod": "lab"}),
    "Plan": results.Plan(("do this",)),
    "PodList": results.PodList((STATUS,), (RENTAL,)),
    "PodDetail": results.PodDetail(STATUS, "host", "Linux", "3.11", 4, 8, 16, "/home/me", (GPU,), "570.86", "12.8"),
    "EndpointList": results.EndpointList((ENDPOINT,), (STATUS,), (FOREIGN,)),
    "EndpointDetail": results.EndpointDetail(ENDPOINT, ("server", "--port"), ("last line",), FREED),
    "ModelRow": MODEL,
    "ModelList": results.ModelList((MODEL,)),
    "RecipeRow": RECIPE,
    "ModelDetail": results.ModelDetail(
        MODEL, ("t",), "gguf", "hermes", None, "0.1", {"layers": 2}, (RECIPE,), {"layers": "https://example.org"}
    ),
    "FitReport": results.FitReport(
        "m",
        "vllm",
        "lab",
        True,
        "It fits.",
        8192,
        1,
        1,
        1,
        0.9,
        "auto",
        (PARTS,),
        131072.0,
        40000,
        40000,
        4,
        ("--context 4096",),
        ("layers",),
        "https://example.org",
    ),
    "UrlDetail": results.UrlDetail("tiny", "http://127.0.0.1:1/v1", MASK, "tiny", ("export X=1",), "import openai"),
    "JobList": results.JobList((JOB,), (STATUS,)),
    "Transfer": results.Transfer(("a", "b"), 10, 5, 0.5),
    "TunnelList": results.TunnelList((TunnelRow("lab", 1, 2),)),
    "Reply": results.Reply("Hello.", "tiny", "tiny", "stop", "Hm.", Usage(1, 2), 0.1, 0.2, 3.0),
    "ConversationDetail": results.ConversationDetail("tiny", (Message("user", "Hi"),)),
    "SettingRow": SETTING,
    "SettingList": results.SettingList((SETTING,)),
    "SecretRow": results.SecretRow("HF_TOKEN", "file"),
    "ImportRow": IMPORTED,
    "ImportList": results.ImportList((IMPORTED,), "pi", "/home/me/.pi/pods.json", ("a note",)),
    "MatrixList": results.MatrixList((TRIED,), "lab", "Linux x86_64, 2 CPUs", "0.1.0", "support.md"),
    "ShellScript": results.ShellScript("bash", "complete -F x podlab", "echo >> ~/.bashrc"),
    "BenchReport": results.BenchReport("tiny", "tiny", "llamacpp", "lab", 64, 32, (LEVEL,), 0.2),
    "MetricsReport": results.MetricsReport("tiny", "tiny", "vllm", "lab", 2, 1, 0.5, 10, 20, 3.5, 7.0, 1.0),
    "SmokeReport": results.SmokeReport("tiny", "tiny", "llamacpp", "lab", True, (types.Check("health", "ok"),)),
    "SecretList": results.SecretList((results.SecretRow("HF_TOKEN", "file"),)),
    "OfferRow": OFFER,
    "OfferList": rent_results.OfferList((OFFER,), "sandbox", True, "tiny"),
    "CandidateRow": CANDIDATE,
    "PodPlan": rent_results.PodPlan("lab", "sandbox", True, (CANDIDATE,), 0.45),
    "RentalDetail": RENTAL,
    "RentalList": rent_results.RentalList((RENTAL,)),
    "RentalPanel": rent_results.RentalPanel((RENTAL,), ("sandbox",)),
    "CostRow": COST,
    "CostList": rent_results.CostList((COST,), "pod", COST),
    "OrphanRow": ORPHAN,
    "OrphanList": rent_results.OrphanList((ORPHAN,), ("sandbox",)),
    "RentalLog": rent_results.RentalLog("lab", "sandbox", True, (renting.RentalLine("1", 1.5, "system", "pulling"),)),
    "VolumeList": rent_results.VolumeList((renting.Volume("v1", "models", 50, "EU-RO-1"),), "sandbox", True, 3.5),
    "TemplateList": rent_results.TemplateList((renting.Template("t1", "mine", "image"),), "sandbox", True),
    "RegistryList": rent_results.RegistryList((renting.Registry("r1", "hub"),), "sandbox", True),
    "AccountKeyList": rent_results.AccountKeyList((renting.AccountKey("ssh-ed25519", "SHA256:x"),), "sandbox", True),
    "AccountDetail": rent_results.AccountDetail(renting.Account("sandbox"), True, 3600.0),
    "InitReport": rent_results.InitReport("sandbox", True, (types.Check("key", "ok"),), ("rent.ttl = 2h",), ("next",)),
    "SandboxDetail": rent_results.SandboxDetail(True, "http://127.0.0.1:1", 7, 1.0, 2, 1, 25.0, 0.4, ("html",)),
    "FaultRow": rent_results.FaultRow("html", "HTML under status 200"),
    "FaultList": rent_results.FaultList((rent_results.FaultRow("html", "HTML"),)),
    "DoctorReport": rent_results.DoctorReport(True, "sandbox", True, (types.Check("key", "ok"),)),
}

STATUS_KEYS = "name id provider address models_path rental_id state last_seen detail in_use"
ENDPOINT_KEYS = (
    "id name pod model engine state cause detail pid port gpus url started_at exit_status generation last_seen"
)
PROMISED = {
    "Done": "text changed",
    "Plan": "would",
    "PodList": "pods rentals limit left_out unread",
    "PodDetail": "pod hostname system python cpu_count memory_bytes free_disk_bytes home gpus driver cuda rental",
    "EndpointList": "endpoints pods foreign",
    "EndpointDetail": "endpoint command log freed",
    "ModelRow": ("id summary engine source parameters size_bytes context licence active_parameters gated fits how"),
    "ModelList": "models pod",
    "RecipeRow": ("gpus types engine tensor_parallel data_parallel context arguments env startable notes source"),
    "ModelDetail": ("model aliases format tool_parser reasoning_parser min_version geometry recipes sources"),
    "FitReport": (
        "model engine pod fits reason context concurrency tensor_parallel data_parallel memory_ratio cache_dtype gpus "
        "cache_bytes_per_token cache_tokens largest_context largest_concurrency nearest missing source"
    ),
    "UrlDetail": "name base_url key model exports snippet works",
    "JobList": "jobs pods",
    "Transfer": "files total_bytes sent_bytes seconds left_out",
    "TunnelList": "tunnels",
    "Reply": "text endpoint model stop_reason reasoning usage first_token_s total_s tokens_per_second",
    "ConversationDetail": "endpoint messages",
    "SettingRow": "name value source help",
    "SettingList": "settings",
    "SecretRow": "name source",
    "ImportRow": "name address state detail",
    "ImportList": "machines tool path notes",
    "MatrixList": "rows pod machine podlab saved",
    "ShellScript": "shell text install",
    "BenchReport": "endpoint model engine pod input_tokens output_tokens levels ttft_limit_s tpot_limit_s e2e_limit_s",
    "MetricsReport": "endpoint model engine pod running waiting kv_used_ratio prompt_tokens generation_tokens "
    "prompt_tokens_per_s generation_tokens_per_s seconds",
    "SmokeReport": "endpoint model engine pod ok checks",
    "SecretList": "secrets",
    "HubModelList": "models pod",
    "DownloadDetail": "download model",
    "DownloadList": "downloads pods",
    "FileList": "models pod one",
    "VerifyReport": "model pod ok files total_bytes seconds mend",
    "DiskUsage": "disk models others",
    "CacheQuota": "disk next",
    "OfferRow": "gpu gpu_id gpu_count cloud usd_per_hour memory_bytes stock data_centers fits how",
    "OfferList": "offers provider simulated model",
    "CandidateRow": "gpu gpu_id gpu_count cloud usd_per_hour stock data_centers refused",
    "PodPlan": (
        "name provider simulated candidates usd_per_hour disk_usd_per_hour stopped_usd_per_hour budget_usd ttl_s "
        "idle_s lease_s cap_usd worst_usd worst image notes"
    ),
    "RentalDetail": (
        "name id provider simulated state order_name rental_id gpu gpu_count cloud data_center usd_per_hour spent_usd "
        "billed_usd budget_usd deadline_at idle_s lease_s asked_at uptime_s protection protection_detail worst_usd "
        "worst_until worst ended_at why model notebook public_urls"
    ),
    "RentalList": "rentals",
    "RentalPanel": "rentals asked foreign problems",
    "CostRow": ("of today_usd month_usd total_usd usd_per_hour billed_usd difference_usd pods open_pods simulated"),
    "CostList": "costs by total simulated per_day_usd total_limit_usd notes limit left_out",
    "OrphanRow": "name provider simulated owner state found usd_per_hour rental_id launch created_at fix",
    "OrphanList": "orphans asked open_pods problems",
    "RentalLog": "pod provider simulated lines",
    "VolumeList": "volumes provider simulated usd_per_month",
    "TemplateList": "templates provider simulated",
    "RegistryList": "registries provider simulated",
    "AccountKeyList": "keys provider simulated",
    "AccountDetail": "account simulated lasts_s",
    "DoctorReport": "ok provider simulated checks",
    "InitReport": "provider simulated checks settings next",
    "SandboxDetail": "running url pid speed pods running_pods balance_usd spend_usd_per_hour faults",
    "FaultRow": "name help",
    "FaultList": "faults",
}
"""What programs read: a name may be added behind these, none may be taken away or renamed."""
GPU_KEYS = (
    "index name uuid lost error utilization_percent memory_utilization_percent memory_total_bytes memory_used_bytes "
    "memory_free_bytes temperature_celsius power_w power_limit_w energy_j sm_clock_mhz memory_clock_mhz fan_percent "
    "ecc_errors throttle_reasons mig parent processes"
)
HOST_KEYS = (
    "cpu_percent load_1m cpus memory_total_bytes memory_available_bytes disk_total_bytes disk_free_bytes "
    "received_bytes_per_s sent_bytes_per_s"
)
PARTS_KEYS = (
    "index name total_bytes free_bytes budget_bytes weights_bytes activations_bytes overhead_bytes cache_bytes "
    "left_bytes"
)
LEVEL_KEYS = (
    "concurrency rate_per_s requests failed duration_s requests_per_s output_tokens_per_s total_tokens_per_s "
    "prompt_tokens output_tokens goodput_per_s ttft tpot itl e2e late_s errors"
)
PROMISED_NOUNS = {
    "HubModel": (types.HubModel("a/b", 3), "id downloads parameters format dtype licence gated fits"),
    "DownloadRow": (
        DOWNLOAD,
        "id pod model state done_bytes total_bytes rate_bytes_per_s left_s detail started_at files",
    ),
    "DownloadFile": (DOWNLOAD.files[0], "name done_bytes total_bytes"),
    "StoredModel": (STORED, "id pod path format state size_bytes last_used used_by commit files"),
    "WeightFile": (STORED.files[0], "name path size_bytes partial_bytes digest checked"),
    "VerifiedFile": (VERIFIED, "name path state digest expected"),
    "ModelDisk": (DISK, "pod path used_bytes free_bytes total_bytes quota_bytes"),
    "CachedModel": (types.CachedModel("a/b", "lab", "/c", 5, 1.0), "id pod path size_bytes last_used"),
    "PodStatus": (STATUS, STATUS_KEYS),
    "Endpoint": (ENDPOINT, ENDPOINT_KEYS),
    "JobRow": (JOB, "id pod state command started_at status"),
    "TunnelRow": (TunnelRow("lab", 1, 2), "pod local_port remote_port"),
    "Message": (Message("user", "Hi"), "role content reasoning"),
    "Usage": (Usage(1, 2), "prompt_tokens completion_tokens"),
    "LogLines": (types.LogLines(("a",)), "lines generation offset dropped_bytes"),
    "Interactive": (types.Interactive(("ssh",), "run it"), "argv how"),
    "PodSample": (SAMPLE, "pod at source gpus host driver cuda detail simulated"),
    "EngineVersions": (types.EngineVersions("0.32.0", "2.13.0", "13.0", "3.12.3"), "engine torch cuda python"),
    "SetupReport": (
        types.SetupReport("lab", "vllm", "0.32.0", True, True, "/h/envs/v", "/m", (types.Check("GPUs", "ok"),), ()),
        "pod engine version ready installed environment models_path checks stages versions verified",
    ),
    "GpuSample": (GPU, GPU_KEYS),
    "GpuProcess": (types.GpuProcess(7), "pid memory_bytes name owner"),
    "HostSample": (SAMPLE.host, HOST_KEYS),
    "ForeignProcess": (FOREIGN, "pod gpu pid memory_bytes name"),
    "FreedMemory": (FREED, "gpus held_bytes freed_bytes left measured text"),
    "Level": (LEVEL, LEVEL_KEYS),
    "Spread": (LEVEL.ttft, "mean_s p50_s p90_s p99_s max_s"),
    "GpuParts": (
        PARTS,
        PARTS_KEYS,
    ),
    "Tried": (TRIED, "model engine backend state pod ready_s tokens_per_s first_token_s checks cause detail"),
    "Check": (types.Check("GPU", "failed", "none", "rent one"), "name state detail fix took_s"),
    "SshAddress": (POD.address, "host user port identity_files alias proxy_jump"),
}


def strict(value: Any) -> Any:
    """Through JSON and back; what JSON has no word for is refused."""
    return json.loads(json.dumps(document(value), allow_nan=False))


def test_every_value_is_held_here() -> None:
    """No dataclass of results.py and rent_results.py is without a promise."""
    kinds = {
        name
        for room in (results, rent_results)
        for name, kind in vars(room).items()
        if dataclasses.is_dataclass(kind) and kind.__module__ == room.__name__
    }
    assert kinds - {"Outcome"} == set(PROMISED) == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_the_keys_of_each_document(name: str) -> None:
    """Each value's document has the promised keys in their order, and is plain JSON."""
    assert " ".join(strict(VALUES[name])) == PROMISED[name]
    assert strict(VALUES[name]) == document(VALUES[name])


@pytest.mark.parametrize("name", PROMISED_NOUNS)
def test_the_keys_of_each_noun(name: str) -> None:
    """The nouns inside of the values keep their keys, too; a pod's status is one flat object."""
    value, keys = PROMISED_NOUNS[name]
    assert " ".join(strict(value)) == keys


def test_a_status_is_flat_wherever_it_stands() -> None:
    """In a list, in a detail and alone, name and state of a pod stand side by side."""
    flat = strict(STATUS)
    assert (flat["name"], flat["state"], flat["in_use"]) == ("lab", "reachable", True)
    assert flat["address"] == {
        "host": "gpu.example", "user": "me",
        "port": 2222, "identity_files": ["~/.ssh/id"], "alias": None, "proxy_jump": None,
    }  # fmt: skip
    assert strict(VALUES["PodList"])["pods"] == [flat]
    assert strict(VALUES["PodDetail"])["pod"] == flat
    assert strict(VALUES["EndpointList"])["pods"] == [flat]


def test_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret anywhere in a value is asterisks in its document."""
    monkeypatch.setattr(secrets, "_known", set())
    secret = Secret("canary-12345678")
    values = [
        results.UrlDetail("tiny", "http://h", secret, "tiny", (), ""), results.SettingRow("key", secret, "file", ""),
        results.Done("x", {"key": secret}), {"a": [secret, (secret,)], secret: 1},  # type: ignore[dict-item]
    ]  # fmt: skip
    for value in values:
        text = json.dumps(document(value))
        assert "canary" not in text
        assert MASK in text


def test_odd_values_are_json() -> None:
    """What JSON has no word for becomes null or text: numbers that are none, paths, keys that are no strings."""
    assert strict({"a": float("nan"), "b": [float("inf"), 1.5], Path("c"): Path("/x"), 3: EndpointState.READY}) == {
        "a": None, "b": [None, 1.5], "c": "/x", "3": "ready",
    }  # fmt: skip
    assert strict(None) is None


@pytest.mark.parametrize("name", VALUES)
def test_which_values_are_tables(name: str) -> None:
    """Lists and panels have rows, also when they are empty; everything else has none."""
    found = rows(VALUES[name])
    if not name.endswith(("List", "Panel")):
        assert found is None
        return
    assert found == list(getattr(VALUES[name], PROMISED[name].split()[0]))
    empty = type(VALUES[name])(**{field.name: () for field in dataclasses.fields(VALUES[name])})
    assert rows(empty) == []


@pytest.mark.parametrize(
    "value", [results.Transfer((), 0, 0, 0.0), types.LogLines(()), results.Plan(()), JOB, None, "x"]
)
def test_what_is_no_table(value: Any) -> None:
    """Tuples of plain strings, empty or not, and values of other rooms are no tables."""
    assert rows(value) is None
