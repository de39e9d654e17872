"""Names, sources and the user's own entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.catalog.catalog import ModelEntry, SendFile, entries, find, resolve
from podlab.catalog.sources import (
    BuiltinSource,
    FileSource,
    FolderSource,
    HubRepo,
    HubSource,
    PodSource,
    parse_source,
    source_text,
)
from podlab.errors import BadArgument, BadSettings, NotFound
from podlab.settings import home


def own(text: str) -> None:
    (home() / "models.toml").write_text(text)


def test_every_packaged_entry_is_whole() -> None:
    ids = [entry.id for entry in entries()]
    assert ids[0] == "tiny"
    assert len(ids) >= 7
    for entry in entries():
        assert entry.summary, entry.id
        assert entry.parameters, entry.id
        assert entry.context, entry.id
        if entry.format == "safetensors" and not entry.convert:
            assert {"parameters", "context"} <= dict(entry.source_of).keys(), entry.id
            assert all(address.startswith("https://") for _, address in entry.source_of), entry.id
            assert not entry.licence or "licence" in dict(entry.source_of), entry.id
            assert (entry.geometry is None) == ("geometry" not in dict(entry.source_of)), entry.id
        else:
            assert entry.licence, entry.id
        assert find(entry.id) == entry
        for alias in entry.aliases:
            assert find(alias) == entry


def test_the_built_in_model_is_in_the_package() -> None:
    found = resolve(find("tiny"))
    assert isinstance(found, SendFile)
    assert found.path.read_bytes()[:4] == b"GGUF"
    assert found.size_bytes == found.path.stat().st_size


def test_an_unknown_name_says_what_it_could_have_meant() -> None:
    with pytest.raises(NotFound) as caught:
        find("qwen3-4")
    assert "qwen3-4b" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        find("zzzzzz")
    assert "podlab model catalog" in caught.value.hint


LLORCH_GGUF = ("tinyllama", "qwen", "qwen-fp16", "phi3", "llama3", "llama32", "llama2", "mistral", "gpt2", "granite")
LLORCH_POOL = (
    "Qwen/Qwen2.5-0.5B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "microsoft/Phi-3-mini-4k-instruct",
    "mistralai/Mistral-7B-Instruct-v0.2",
)  # fmt: skip


@pytest.mark.parametrize("name", LLORCH_GGUF)
def test_the_files_of_llorch_are_found_by_their_names_there(name: str) -> None:
    entry = find(name)
    assert entry.engine == "llamacpp"
    assert entry.format == "gguf" or entry.convert


@pytest.mark.parametrize("name", LLORCH_POOL)
def test_the_safetensors_of_llorch_are_found(name: str) -> None:
    entry = find(name)
    assert (entry.engine, entry.format, entry.source) == ("vllm", "safetensors", HubRepo(name))
    assert entry.geometry is not None


def test_weights_are_what_the_parameters_and_their_type_make() -> None:
    """A slip of the pen by a factor would judge recipes wrongly."""
    least = {"mxfp4": 0.5, "compressed-tensors": 0.5}
    for entry in entries():
        if entry.geometry and entry.geometry.weight_bytes and entry.parameters:
            each = entry.geometry.weight_bytes / entry.parameters
            kind = entry.geometry.quantization
            low, high = (least.get(kind, 0.95), 1.35) if kind else (1.9, 2.15)
            assert low <= each <= high, (entry.id, each)


def test_a_repository_of_the_hub_needs_no_entry() -> None:
    entry = find("some-org/Some-Model")
    assert (entry.id, entry.engine, entry.source) == ("some-org/Some-Model", "vllm", HubRepo("some-org/Some-Model"))
    assert find("hf:some-org/Some-Model@v2").source == HubRepo("some-org/Some-Model", "v2")
    assert find("hf:Qwen/Qwen3-8B") == find("Qwen/Qwen3-8B")


def test_a_folder_is_a_model_here_or_on_the_pod(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(NotFound):
        find(str(folder))
    (folder / "config.json").write_text("{}")
    assert find(str(folder)).source == FolderSource(str(folder))
    assert find(f"folder:{folder}").source == FolderSource(str(folder))
    assert find("pod:/models/mine/").source == FolderSource("/models/mine", on_pod=True)
    assert find("pod:/models/mine/").engine == "vllm"


@pytest.mark.parametrize(
    "text",
    ["builtin:x", "hf:a/b", "hf:a/b@v", "hf:a/b/c.gguf", "hf:a/b@v/c.gguf", "file:/x.gguf", "pod:/x.gguf", "pod:/x/",
     "folder:/x"],
)  # fmt: skip
def test_a_source_is_written_as_it_is_read(text: str) -> None:
    assert source_text(parse_source(text)) == text


def test_a_file_of_this_computer_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    file.write_bytes(b"GGUF")
    entry = find(str(file))
    assert (entry.id, entry.source) == ("my model", FileSource(file))
    assert resolve(entry) == SendFile(file, 4)
    file.unlink()
    with pytest.raises(NotFound):
        resolve(entry)
    with pytest.raises(NotFound):
        find(str(file))


def test_a_file_of_the_hub_and_one_on_the_pod_need_no_entry() -> None:
    entry = find("hf:Qwen/Qwen3-0.6B-GGUF@v1/sub/Qwen3-0.6B-Q8_0.gguf")
    assert entry.source == HubSource("Qwen/Qwen3-0.6B-GGUF", "sub/Qwen3-0.6B-Q8_0.gguf", "v1")
    assert entry.id == "Qwen3-0.6B-Q8_0"
    assert resolve(entry) is entry.source
    assert resolve(find("pod:/models/x.gguf")) == PodSource("/models/x.gguf")


@pytest.mark.parametrize(
    "text",
    ["hf:repo/file.gguf", "hf:a", "pod:/", "pod://", "folder:x", "folder:/", "folder:/x\n", "hf:a/b/../c.gguf",
     "hf:a/b/-c.gguf", "hf:../b/c.gguf", "hf:a/b@../c.gguf", "hf:a/b/c.bin", "hf:a/b/c d.gguf", "hf:a/$(id)/c.gguf",
     "hf:a/b/c.gguf\n", "pod:x.gguf", "pod:/x\n.gguf", "hf:"],
)  # fmt: skip
def test_what_could_leave_its_folder_or_become_an_option_is_refused(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        find(text)
    assert caught.value.hint


def test_the_users_entries_come_on_top_and_win() -> None:
    own(
        f"""
        [models.mine]
        source = "hf:a/b/c.gguf"
        aliases = ["m", "qwen3"]
        sha256 = "{"a" * 64}"
        size_bytes = 5
        [models.tiny]
        source = "pod:/t.gguf"
        """
    )
    assert find("m") == ModelEntry("mine", HubSource("a/b", "c.gguf", "main", "a" * 64, 5), aliases=("m", "qwen3"))
    assert find("qwen3").id == "mine"
    assert find("tiny").source == PodSource("/t.gguf")
    assert len([entry for entry in entries() if entry.id == "tiny"]) == 1


@pytest.mark.parametrize(
    "text,said,hint",
    [
        ("[models.x", "is not TOML", "Mend"),
        ("[model.x]", "holds 'model'", '[models."NAME"]'),
        ("models = 3", "holds 'models'", '[models."NAME"]'),
        ("[models]\nx = 3", "is 3", '[models."NAME"]'),
        ("[models.x]\nsumary = 'x'", "no field 'sumary'", "'summary'"),
        ("[models.x]\nsummary = 'x'", "source is missing", "hf:OWNER/REPO/FILE.gguf"),
        ("[models.x]\nsource = 3", "source is 3", "hf:OWNER/REPO/FILE.gguf"),
        ("[models.x]\nsource = 'hf:a'", "'hf:a' names nothing", "hf:OWNER/REPO/FILE.gguf"),
        ("[models.'a/b']\ngeometry = 3", "geometry is 3", "shape"),
        ("[models.'a/b'.geometry]\nlayer = 3", "no field 'layer'", "'layers'"),
        ("[models.'a/b'.geometry]\nlayers = -3", "layers is -3", "from 0"),
        ("[models.'a/b'.source_of]\nlayers = 3", "source_of is", "address"),
        ("[[recipes]]\nmodel = 'a/b'", "gpus is missing", "such as 2"),
        ("[models.x]\nsource = 'http://x'", "does not say where", "hf:OWNER/REPO/FILE.gguf"),
        ("[models.x]\nsource = 'pod:/x.gguf'\ncontext = '8k'", "context is '8k'", "8192"),
        ("[models.x]\nsource = 'pod:/x.gguf'\ncontext = true", "context is True", "8192"),
        ("[models.x]\nsource = 'pod:/x.gguf'\ncontext = 0", "context is 0", "8192"),
        ("[models.x]\nsource = 'pod:/x.gguf'\naliases = [1]", "aliases is [1]", "other names"),
        ("[models.x]\nsource = 'pod:/x.gguf'\nengine = 'vlm'", "engine is 'vlm'", "one of llamacpp"),
        ("[models.x]\nsource = 'hf:a/b/c.gguf'\nsha256 = 'x'", "sha256 is 'x'", "64 hexadecimal"),
        (
            "[models.x]\nsource='pod:/x.gguf'\n[models.y]\nsource='pod:/y.gguf'\naliases=['x']",
            "names both",
            "Take it out",
        ),
    ],
)
def test_a_damaged_entry_names_field_value_and_fix(text: str, said: str, hint: str) -> None:
    own(text)
    with pytest.raises(BadSettings) as caught:
        entries()
    assert said in str(caught.value)
    assert "models.toml" in str(caught.value)
    assert hint in caught.value.hint


def test_the_kinds_of_source_are_what_the_packaged_file_uses() -> None:
    assert {type(entry.source) for entry in entries()} == {BuiltinSource, HubSource, HubRepo}
