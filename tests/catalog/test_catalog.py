"""Names, sources and the user's own entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.catalog.catalog import ModelEntry, SendFile, entries, find, resolve
from podlab.catalog.sources import BuiltinSource, FileSource, HubSource, PodSource
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
        assert entry.licence, entry.id
        assert entry.parameters, entry.id
        assert entry.context, entry.id
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
    assert "tiny" in caught.value.hint


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
    ["hf:repo/file.gguf", "hf:a/b/../c.gguf", "hf:a/b/-c.gguf", "hf:../b/c.gguf", "hf:a/b@../c.gguf", "hf:a/b/c.bin",
     "hf:a/b/c d.gguf", "hf:a/$(id)/c.gguf", "hf:a/b/c.gguf\n", "pod:x.gguf", "pod:/x\n.gguf", "hf:"],
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
        ("[models.x]\nsource = 'hf:a'", "'hf:a' names no file", "hf:OWNER/REPO/FILE.gguf"),
        ("[models.x]\nsource = 'http://x'", "says not where", "hf:OWNER/REPO/FILE.gguf"),
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
    assert {type(entry.source) for entry in entries()} == {BuiltinSource, HubSource}
