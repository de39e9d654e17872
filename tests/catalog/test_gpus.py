"""Kinds of GPU: told apart token by token, counted, and refused where several could be meant."""

from __future__ import annotations

import pytest

from podlab.catalog.gpus import find_type, gpu_types, parse_gpus, type_of
from podlab.errors import BadArgument, NotFound


@pytest.mark.parametrize(
    "said, meant",
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA RTX A4000", "RTX A4000"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA A40-48Q", None),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA H20-3e", "H20-3e"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("A100-80G", "A100 80GB"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA RTX 4000 Ada Generation", None),
        ("", None),
    ],
)
def test_a_name_means_one_kind_or_none(said: str, meant: str | None) -> None:
    found = type_of(said)
    assert (found and found.name) == meant


def test_every_kind_is_found_by_its_own_name() -> None:
    for kind in gpu_types():
        assert find_type(kind.name) is kind
        assert kind.fp8 == (kind.capability >= 8.9), kind.name
        assert kind.classes, kind.name


@pytest.mark.parametrize(
    "text, names",
    [
        ("2xRTX 4090", ["RTX 4090"] * 2),
        ("2x RTX 4090", ["RTX 4090"] * 2),
        ("2 x RTX 4090", ["RTX 4090"] * 2),
        ("2 L4", ["L4"] * 2),
        ("H100:2", ["H100"] * 2),
        ("H100 x2", ["H100"] * 2),
        ("8x H200", ["H200"] * 8),
        ("3090", ["RTX 3090"]),
        ("L4, 2x A40", ["L4", "A40", "A40"]),
    ],
)
def test_gpus_are_counted(text: str, names: list[str]) -> None:
    rooms = parse_gpus(text)
    assert [room.name for room in rooms] == names
    assert [room.index for room in rooms] == list(range(len(names)))
    assert all(room.free_bytes == room.total_bytes > 0 for room in rooms)


@pytest.mark.parametrize(
    "text, hint",
    [
        ("A100", "A100 40GB or A100 80GB"),
        ("RTX 6000", "RTX 6000 Ada or RTX PRO 6000"),
        ("2x V100", "V100 16GB or V100 32GB"),
        ("0x L4", "1 to 64"),
        ("65x L4", "1 to 64"),
        ("", "2x RTX 4090"),
        ("L4,", "2x RTX 4090"),
    ],
)
def test_what_could_be_several_is_refused_with_the_candidates(text: str, hint: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_gpus(text)
    assert hint in caught.value.hint


def test_a_gpu_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(NotFound) as caught:
        parse_gpus("Voodoo 2")
    assert "RTX 4090" in caught.value.hint
