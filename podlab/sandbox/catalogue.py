"""What the simulated company offers: GPU types, data centres, public templates, the price of disks.

Names of GPU types and data centres are RunPod's own (docs.runpod.io/references/gpu-types); every price and every stock
here is invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CloudWord = Literal["SECURE", "COMMUNITY"]
Level = Literal["NONE", "LOW", "MEDIUM", "HIGH"]

DISK_USD_PER_GB_MONTH = 0.10
"""Of a container's own disk and of a persistent one, while the pod runs (docs.runpod.io/pods/pricing)."""
STOPPED_DISK_USD_PER_GB_MONTH = 0.20
VOLUME_USD_PER_GB_MONTH = 0.07
MONTH_S = 730 * 3600.0


@dataclass(frozen=True)
class DataCenter:
    """A place with machines. `region` and `volumes` are words of the API."""

    id: str
    name: str
    country: str
    region: str
    volumes: tuple[str, ...] = ("STANDARD",)


@dataclass(frozen=True)
class GpuKind:
    """A GPU type: prices in dollars an hour for one, GPUs free per data centre; community machines have no place."""

    id: str
    name: str
    memory_gb: int
    secure_usd: float
    community_usd: float
    free: tuple[tuple[str, int], ...]
    community_free: int = 0
    cuda: tuple[str, ...] = ("12.4", "12.6", "12.8")
    pool: str | None = None
    max_count: int = 8
    maker: str = "NVIDIA"


DATA_CENTERS = (
    DataCenter("US-KS-2", "US Kansas 2", "US", "NORTH_AMERICA", ("STANDARD", "HIGH_PERFORMANCE")),
    DataCenter("US-TX-3", "US Texas 3", "US", "NORTH_AMERICA"),
    DataCenter("US-GA-1", "US Georgia 1", "US", "NORTH_AMERICA"),
    DataCenter("CA-MTL-1", "Canada Montreal 1", "CA", "NORTH_AMERICA"),
    DataCenter("EU-RO-1", "Romania 1", "RO", "EUROPE", ("STANDARD", "HIGH_PERFORMANCE")),
    DataCenter("EU-SE-1", "Sweden 1", "SE", "EUROPE"),
    DataCenter("EUR-IS-1", "Iceland 1", "IS", "EUROPE"),
    DataCenter("AP-JP-1", "Japan 1", "JP", "ASIA", ()),
)

GPU_KINDS = (
    GpuKind("NVIDIA A40", "A40", 48, 0.40, 0.35, (("CA-MTL-1", 9), ("EU-SE-1", 4)), 3, pool="AMPERE_48"),
    GpuKind("NVIDIA RTX A6000", "RTX A6000", 48, 0.49, 0.33, (("US-TX-3", 4), ("EU-RO-1", 8)), 6, pool="AMPERE_48"),
    GpuKind("NVIDIA RTX A5000", "RTX A5000", 24, 0.27, 0.16, (("EU-RO-1", 8), ("EUR-IS-1", 2)), 9, pool="AMPERE_24"),
    GpuKind("NVIDIA RTX A4500", "RTX A4500", 20, 0.25, 0.19, (("EU-RO-1", 3),), 2, pool="AMPERE_16"),
    GpuKind("NVIDIA RTX A4000", "RTX A4000", 16, 0.25, 0.17, (("EU-RO-1", 9),), 4, pool="AMPERE_16"),
    GpuKind("NVIDIA RTX A2000", "RTX A2000", 6, 0.12, 0.12, (), 1, max_count=1),
    GpuKind("NVIDIA GeForce RTX 3090", "RTX 3090", 24, 0.46, 0.22, (("CA-MTL-1", 3),), 12, pool="AMPERE_24"),
    GpuKind("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.69, 0.34, (("US-KS-2", 3), ("EU-RO-1", 9)), 9, pool="ADA_24"),
    GpuKind("NVIDIA GeForce RTX 5090", "RTX 5090", 32, 0.94, 0.69, (("EU-RO-1", 2),), 2, ("12.8",), "BLACKWELL_32"),
    GpuKind("NVIDIA L4", "L4", 24, 0.43, 0.43, (("US-GA-1", 5), ("EU-SE-1", 1)), 0, pool="AMPERE_24"),
    GpuKind("NVIDIA L40", "L40", 48, 0.99, 0.69, (("US-GA-1", 2),), 1, pool="ADA_48_PRO"),
    GpuKind("NVIDIA L40S", "L40S", 48, 0.86, 0.79, (("US-TX-3", 8), ("US-KS-2", 2)), 2, pool="ADA_48_PRO"),
    GpuKind("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48, 0.77, 0.74, (("US-KS-2", 3),), 2, pool="ADA_48_PRO"),
    GpuKind("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.39, 1.19, (("US-KS-2", 4), ("EU-RO-1", 2)), pool="AMPERE_80"),
    GpuKind("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 1.49, 1.39, (("US-KS-2", 8), ("EUR-IS-1", 8)), pool="AMPERE_80"),
    GpuKind("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.39, 1.99, (("US-KS-2", 2),), 1, ("12.4", "12.8"), "ADA_80_PRO"),
    GpuKind("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 2.99, 2.69, (("US-KS-2", 8), ("EUR-IS-1", 4)), 0, ("12.4", "12.8"),
            "ADA_80_PRO"),
    GpuKind("NVIDIA H100 NVL", "H100 NVL", 94, 3.07, 2.59, (("US-KS-2", 1),), 0, ("12.4", "12.8")),
    GpuKind("NVIDIA H200", "H200 SXM", 141, 3.59, 3.59, (("US-GA-1", 8), ("EUR-IS-1", 2)), 0, ("12.8", "12.9")),
    GpuKind("NVIDIA B200", "B200", 180, 5.98, 5.98, (("US-KS-2", 8),), 0, ("12.8", "12.9", "13.0")),
    GpuKind("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", 96, 1.79, 1.69, (("EUR-IS-1", 4),), 0,
            ("12.8", "12.9")),
    GpuKind("AMD Instinct MI300X OAM", "MI300X", 192, 2.49, 2.49, (("EU-RO-1", 8),), 0, (), maker="AMD"),
)  # fmt: skip


@dataclass(frozen=True)
class TemplateEntry:
    """A named image with its settings, the company's own or a person's."""

    id: str
    name: str
    image: str
    args: str = ""
    disk_gb: int = 20
    ports: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    persistent: tuple[int, str] | None = None
    """GB and path."""
    registry: str | None = None
    serverless: bool = False
    public: bool = False
    category: str = "NVIDIA"
    start_ssh: bool = True
    start_jupyter: bool = True
    cuda: tuple[str, ...] = ()


PUBLIC_TEMPLATES = (
    TemplateEntry(
        "runpod-torch-v280", "Runpod Pytorch 2.8.0", "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404", disk_gb=30,
        ports=("8888/http", "22/tcp"), persistent=(20, "/workspace"), public=True,
    ),
    TemplateEntry(
        "runpod-ubuntu", "Runpod Ubuntu 22.04", "runpod/base:1.0.2-ubuntu2204", ports=("22/tcp",), public=True,
        start_jupyter=False,
    ),
    TemplateEntry(
        "runpod-vllm", "vLLM Latest", "vllm/vllm-openai:latest", disk_gb=50, ports=("8000/http", "22/tcp"), public=True,
        start_jupyter=False,
    ),
)  # fmt: skip


def level(free: int, asked: int = 1) -> Level:
    """The API's word for a stock of so many GPUs, when so many are asked for."""
    if free < asked:
        return "NONE"
    return "LOW" if free < 3 * asked else "MEDIUM" if free < 6 * asked else "HIGH"


def version(text: str) -> tuple[int, ...]:
    """A CUDA version for comparing: 12.11 is above 12.2."""
    return tuple(int(part) for part in text.split("."))
