"""Offers narrowed, sorted, named and held against a model: no company is asked."""

from __future__ import annotations

import pytest

from podlab.catalog.catalog import find
from podlab.catalog.gpus import type_of
from podlab.catalog.reading import geometry_of
from podlab.errors import NotFound
from podlab.lab.offers import Wanted, in_regions, judge_of, of_gpus, refusal, sifted
from podlab.renting import Cloud, Offer, Stock

GIB = 2**30


def offer(
    gpu_id: str, price: float | None = 1.0, *, gib: int = 24, stock: Stock = "high", cloud: Cloud = "secure",
    count: int = 1, places: tuple[str, ...] = ("EU-RO-1",), most: int | None = 8,
) -> Offer:  # fmt: skip
    kind = type_of(gpu_id)
    return Offer(
        "sandbox", gpu_id, kind.name if kind else gpu_id, count, cloud, price, gib * GIB, stock, places, ("12.8",), most
    )


IDS = (
    "NVIDIA L4", "NVIDIA A40", "NVIDIA L40", "NVIDIA L40S", "NVIDIA RTX A4000", "NVIDIA RTX A5000",
    "NVIDIA RTX A6000", "NVIDIA RTX 6000 Ada Generation", "NVIDIA GeForce RTX 4090", "NVIDIA A100 80GB PCIe",
    "NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL", "NVIDIA H200",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition", "AMD Instinct MI300X OAM", "Tesla V100-PCIE-16GB",
    "Tesla V100-SXM2-32GB", "NVIDIA B300 SXM6 AC",
)  # fmt: skip
"""In the order that a substring search would get wrong: L4 before L40S, A40 before A4000."""
ALL = [offer(gpu_id) for gpu_id in IDS]


def ids(name: str) -> set[str]:
    return {each.gpu_id for each in of_gpus(ALL, [name])}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RTX A4000", {"NVIDIA RTX A4000"}), ("A40", {"NVIDIA A40"}), ("L40S", {"NVIDIA L40S"}), ("l4", {"NVIDIA L4"}),
        ("RTX A40", {"NVIDIA A40"}), ("4090", {"NVIDIA GeForce RTX 4090"}), ("rtx4090", {"NVIDIA GeForce RTX 4090"}),
        ("A100", {"NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"}), ("A100 SXM4 80GB", {"NVIDIA A100-SXM4-80GB"}),
        ("H100", {"NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL"}), ("H100 NVL", {"NVIDIA H100 NVL"}),
        ("MI300X", {"AMD Instinct MI300X OAM"}), ("NVIDIA H100 PCIe", {"NVIDIA H100 PCIe"}),
        ("V100 16GB", {"Tesla V100-PCIE-16GB"}), ("6000 Ada", {"NVIDIA RTX 6000 Ada Generation"}),
    ],
)  # fmt: skip
def test_a_gpu_is_named_by_its_words(name: str, meant: set[str]) -> None:
    """An A4000 is no A40, and a name that the company's forms of one card share means all of them."""
    assert ids(name) == meant


def test_a_name_of_several_cards_means_them_all() -> None:
    """Looking costs nothing: only renting asks which one."""
    assert ids("V100") == {"Tesla V100-PCIE-16GB", "Tesla V100-SXM2-32GB"}
    assert ids("A40 L4") == {"NVIDIA A40", "NVIDIA L4"}


@pytest.mark.parametrize(
    ("name", "hint"), [("A4", "Did you mean A40?"), ("L40X", "Did you mean L40?"), ("RTX", "It has: "), ("T4", "It")]
)
def test_what_is_not_offered_says_what_is(name: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        of_gpus(ALL, [name])
    assert caught.value.hint.startswith(hint)


def test_no_offers_at_all_say_so() -> None:
    with pytest.raises(NotFound) as caught:
        of_gpus([], ["A40"])
    assert caught.value.hint == "It offers nothing now."


def test_offers_of_gpus_keep_their_order() -> None:
    assert [each.gpu_id for each in of_gpus(ALL, ["H200", "L4"])] == ["NVIDIA L4", "NVIDIA H200"]


@pytest.mark.parametrize(
    ("regions", "found"),
    [(("EU",), ("EU-RO-1", "EU-SE-1")), (("eur",), ("EUR-IS-1",)), (("US-TX-3",), ("US-TX-3",)),
     (("US-TX",), ("US-TX-3",)), (("U",), ()), (("EU-RO", "US"), ("EU-RO-1", "US-TX-3"))],
)  # fmt: skip
def test_a_region_is_a_beginning_of_whole_words(regions: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert in_regions(("EU-RO-1", "EU-SE-1", "EUR-IS-1", "US-TX-3"), regions) == found


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        (Wanted(), ""), (Wanted(cloud="community"), "it is secure, not community"),
        (Wanted(max_usd_per_hour=0.5), "$1.00/h is more than $0.50/h"), (Wanted(max_usd_per_hour=1.0), ""),
        (Wanted(min_memory_bytes=48 * GIB), "it has 24.0 GiB, less than 48.0 GiB"),
        (Wanted(regions=("US",)), "no stock in US"),
        (Wanted(regions=("EU",)), ""),
    ],
)  # fmt: skip
def test_what_does_not_suit_says_why(wanted: Wanted, refused: str) -> None:
    assert refusal(offer("NVIDIA L4"), wanted) == refused


def test_what_is_not_known_does_not_suit() -> None:
    """An unknown price is not below a ceiling, and an unknown place in no region."""
    assert refusal(offer("NVIDIA L4", None), Wanted(max_usd_per_hour=9)) == "its price is not known"
    assert refusal(offer("NVIDIA L4", places=()), Wanted(regions=("EU",))) == "it does not say where it is"


def names(wanted: Wanted, offers: list[Offer]) -> list[str]:
    return [f"{found.offer.gpu}" for found in sifted(offers, wanted)]


def test_orders() -> None:
    """Cheap, large or in stock first; what has no stock is last in each."""
    offers = [
        offer("NVIDIA A40", 0.4, gib=48, stock="low"), offer("NVIDIA L4", 0.3, stock="none"),
        offer("NVIDIA H200", 3.5, gib=141, stock="high"), offer("NVIDIA RTX A5000", None, stock="medium"),
    ]  # fmt: skip
    assert names(Wanted(sort="price"), offers) == ["A40", "H200", "RTX A5000", "L4"]
    assert names(Wanted(sort="memory"), offers) == ["H200", "A40", "RTX A5000", "L4"]
    assert names(Wanted(sort="stock"), offers) == ["H200", "RTX A5000", "A40", "L4"]


def test_more_gpus_than_a_machine_can_have_are_no_offer() -> None:
    assert names(Wanted(), [offer("NVIDIA L4", count=8, most=4), offer("NVIDIA A40", count=8)]) == ["A40"]


def test_for_a_model_the_fewest_gpus_that_it_fits_on() -> None:
    """Of each kind one row: the smallest number that holds the model; what holds it in none comes last, with why."""
    entry = find("openai/gpt-oss-120b")
    judge = judge_of(entry, geometry_of(entry))
    offers = [
        offer(gpu, 1.0 * count, gib=gib, count=count)
        for gpu, gib in (("NVIDIA L4", 24), ("NVIDIA A100 80GB PCIe", 80), ("NVIDIA H200", 141))
        for count in (1, 2, 4)
    ]
    found = [(each.offer.gpu, each.offer.gpu_count, each.fits) for each in sifted(offers, Wanted(), judge)]
    assert found == [("A100 80GB", 1, True), ("H200", 1, True), ("L4", 4, True)]
    without = sifted([each for each in offers if each.gpu_count < 4], Wanted(), judge)
    assert [(each.offer.gpu, each.offer.gpu_count, each.fits) for each in without][-1] == ("L4", 2, False)
    assert all(each.how for each in without)
