"""Names of GPUs as drivers and companies write them, and the kinds of podlab's table they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.catalog.gpus import gpu_types, type_of
from podlab.gpu_names import known_name, tokens_of

# Every id of docs.runpod.io/references/gpu-types (2026-02-12).
RUNPOD = {
    "AMD Instinct MI300X OAM": None, "NVIDIA A100 80GB PCIe": "A100 80GB", "NVIDIA A100-SXM4-80GB": "A100 80GB",
    "NVIDIA A30": None, "NVIDIA A40": "A40", "NVIDIA B200": "B200", "NVIDIA B300 SXM6 AC": "B300",
    "NVIDIA GeForce RTX 3070": None, "NVIDIA GeForce RTX 3080": None, "NVIDIA GeForce RTX 3080 Ti": None,
    "NVIDIA GeForce RTX 3090": "RTX 3090", "NVIDIA GeForce RTX 3090 Ti": "RTX 3090", "NVIDIA GeForce RTX 4070 Ti": None,
    "NVIDIA GeForce RTX 4080": None, "NVIDIA GeForce RTX 4080 SUPER": None, "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA GeForce RTX 5080": None, "NVIDIA GeForce RTX 5090": "RTX 5090", "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 NVL": "H100 NVL", "NVIDIA H100 PCIe": "H100", "NVIDIA H200": "H200", "NVIDIA H200 NVL": "H200",
    "NVIDIA L4": "L4", "NVIDIA L40": "L40", "NVIDIA L40S": "L40S", "NVIDIA RTX 2000 Ada Generation": None,
    "NVIDIA RTX 4000 Ada Generation": None, "NVIDIA RTX 4000 SFF Ada Generation": None,
    "NVIDIA RTX 5000 Ada Generation": None, "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada", "NVIDIA RTX A2000": None,
    "NVIDIA RTX A4000": "RTX A4000", "NVIDIA RTX A4500": None, "NVIDIA RTX A5000": "RTX A5000",
    "NVIDIA RTX A6000": "RTX A6000", "NVIDIA RTX PRO 4500 Blackwell": None,
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "RTX PRO 6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb": None,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 2g.48gb": None,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX PRO 6000",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX PRO 6000", "Tesla V100-PCIE-16GB": "V100 16GB",
    "Tesla V100-SXM2-16GB": "V100 16GB", "Tesla V100-SXM2-32GB": "V100 32GB",
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), RUNPOD.items())
def test_a_company_s_name_means_a_kind_of_the_table_or_none(name: str, expected: str | None) -> None:
    assert known_name(name) == expected


def test_every_kind_is_called_by_its_own_name_in_both_readings_of_the_table() -> None:
    for kind in gpu_types():
        assert known_name(kind.name) == kind.name
    for name in RUNPOD:
        found = type_of(name)
        assert known_name(name) == (found.name if found else None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A4000", "A40"),
        ("L40S", "L40"),
        ("L40S", "L4"),
        ("L40", "L4"),
        ("H200", "H20"),
        ("A6000", "6000"),
        ("A10G", "A10"),
    ],
)
def test_a_name_that_begins_like_another_is_another(one: str, other: str) -> None:
    assert tokens_of(f"NVIDIA {one}") != tokens_of(f"NVIDIA {other}")
    assert known_name(f"NVIDIA {one}") is None or known_name(f"NVIDIA {one}") != known_name(f"NVIDIA {other}")


@given(st.text())
def test_any_text_has_words(text: str) -> None:
    assert all(word.isalnum() for word in tokens_of(text))
    known_name(text)
