"""Which offers are tried and in which order; names of GPUs by their words; a reason for each refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.errors import BadArgument
from podlab.lab.candidates import Need, accepted, matching, rank, without
from podlab.lab.rent_wish import RentWish
from podlab.renting import Offer
from podlab.sandbox.catalogue import GPU_KINDS

IDS = tuple(kind.id for kind in GPU_KINDS)
OFFERS = tuple(
    Offer("sandbox", kind.id, kind.name, 1, "secure", kind.secure_usd, kind.memory_gb * 2**30, "high",
          tuple(place for place, _ in kind.free), kind.cuda, kind.max_count)
    for kind in GPU_KINDS
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("A40", ["NVIDIA A40"]),
        ("RTX A4000", ["NVIDIA RTX A4000"]),
        ("a4000", ["NVIDIA RTX A4000"]),
        ("L4", ["NVIDIA L4"]),
        ("L40", ["NVIDIA L40"]),
        ("L40S", ["NVIDIA L40S"]),
        ("RTX4090", ["NVIDIA GeForce RTX 4090"]),
        ("RTX 6000 Ada", ["NVIDIA RTX 6000 Ada Generation"]),
        ("H200", ["NVIDIA H200"]),
        ("H100 SXM", ["NVIDIA H100 80GB HBM3"]),
        ("H100 PCIe", ["NVIDIA H100 PCIe"]),
        ("H100 NVL", ["NVIDIA H100 NVL"]),
        ("A100 SXM", ["NVIDIA A100-SXM4-80GB"]),
        ("MI300X", ["AMD Instinct MI300X OAM"]),
        ("nvidia a40", ["NVIDIA A40"]),
        ("H100", ["NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL"]),
        ("A100", ["NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"]),
        ("A4", []),
        ("L4S", []),
        ("RTX", []),
        ("", []),
    ],
)
def test_a_name_means_a_gpu_by_its_words(name: str, meant: list[str]) -> None:
    assert list(matching(name, IDS)) == meant


def test_every_id_means_itself() -> None:
    assert [matching(each, IDS) for each in IDS] == [(each,) for each in IDS]


def test_a_name_without_its_card_on_offer_means_no_other_one() -> None:
    assert matching("L4", [each for each in IDS if each != "NVIDIA L4"]) == ()
    assert matching("A40", [each for each in IDS if each != "NVIDIA A40"]) == ()


def test_the_preferences_come_first_in_their_order_whatever_they_cost() -> None:
    found = accepted(rank(OFFERS, RentWish()))

    assert [each.offer.gpu for each in found] == ["A40", "RTX A6000", "RTX A5000"]


def test_the_price_has_the_disk_in_it() -> None:
    (first, *_) = rank(OFFERS, RentWish(gpus=("A40",), disk_gb=72))

    assert first.disk_usd_per_hour == pytest.approx(0.01)
    assert first.usd_per_hour == pytest.approx(0.41)
    assert first.stopped_usd_per_hour == pytest.approx(0.02)


def test_of_one_gpu_the_cheaper_cloud_comes_first() -> None:
    community = replace(OFFERS[0], cloud="community", usd_per_hour=0.35, data_centers=())
    found = accepted(rank((*OFFERS, community), RentWish(gpus=("A40",), cloud="any")))

    assert [each.offer.cloud for each in found] == ["community", "secure"]


def test_a_name_of_several_gpus_is_asked_about() -> None:
    with pytest.raises(BadArgument, match=r"'H100' could be several") as refused:
        rank(OFFERS, RentWish(gpus=("H100",)))

    assert refused.value.hint == "Write one of them: H100 NVL, H100 PCIe, H100 SXM."


def test_a_gpu_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadArgument, match="is called 'RTX A4001'") as refused:
        rank(OFFERS, RentWish(gpus=("RTX A4001",)))

    assert "RTX A4000" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "wish", "reason"),
    [
        ({"stock": "none"}, RentWish(gpus=("A40",)), "no stock now"),
        ({"usd_per_hour": None}, RentWish(gpus=("A40",)), "no price is given for it"),
        ({}, RentWish(gpus=("A40",), max_usd_per_hour=0.3), "$0.406/h is more than $0.300/h"),
        ({}, RentWish(gpus=("A40",), cloud="community"), "its cloud is secure, not community"),
        ({}, RentWish(gpus=("A40",), regions=("US",)), "not in US"),
        ({"data_centers": ()}, RentWish(gpus=("A40",), regions=("US",)), "it does not say where it is"),
        ({}, RentWish(gpus=("A40",), min_cuda="13.0"), "its drivers run CUDA 12.8, and 13.0 is needed"),
        ({"gpu_count": 9}, RentWish(gpus=("A40",), count=9), "at most 8 of them in a pod"),
        ({}, RentWish(gpus=("L4",)), "not asked for"),
        ({}, RentWish(), ""),
    ],
)
def test_each_refusal_has_its_reason(change: dict[str, object], wish: RentWish, reason: str) -> None:
    offers = (replace(OFFERS[0], **change), *OFFERS[1:])  # type: ignore[arg-type]

    a40 = next(each for each in rank(offers, wish) if each.offer.gpu == "A40")

    assert a40.refused == reason


def test_cuda_versions_are_compared_as_numbers() -> None:
    offer = replace(OFFERS[0], cuda_versions=("12.4", "12.11"))

    assert accepted(rank([offer], RentWish(gpus=("A40",), min_cuda="12.8")))


def test_regions_are_whole_parts_of_a_name() -> None:
    offer = replace(OFFERS[0], data_centers=("EUR-IS-1", "EU-RO-1", "EU-SE-1"))

    (found,) = accepted(rank([offer], RentWish(gpus=("A40",), regions=("EU",))))

    assert found.data_centers == ("EU-RO-1", "EU-SE-1")


def test_for_a_model_the_cheapest_that_holds_it_in_the_smallest_number_comes_first() -> None:
    offers = [
        replace(offer, gpu_count=count, usd_per_hour=(offer.usd_per_hour or 0) * count)
        for offer in OFFERS for count in (1, 2, 4)
    ]  # fmt: skip
    need = Need("big", lambda offer: "" if (offer.memory_bytes or 0) * offer.gpu_count >= 80 * 2**30 else "too small")

    found = accepted(rank(offers, RentWish(for_model="big"), need=need))

    assert (found[0].offer.gpu, found[0].offer.gpu_count) == ("A40", 2)
    counts = {(each.offer.gpu, each.offer.gpu_count) for each in found}
    assert ("A40", 2) in counts
    assert ("A40", 4) not in counts
    assert [each.usd_per_hour for each in found] == sorted(each.usd_per_hour for each in found)


def test_a_data_center_that_gave_a_bad_machine_is_left_out() -> None:
    (found,) = accepted(rank(OFFERS, RentWish(gpus=("A40",))))

    assert without(found, frozenset()) == found
    again = without(found, frozenset({"CA-MTL-1"}))
    assert again is not None
    assert again.data_centers == ("EU-SE-1",)
    assert without(found, frozenset({"CA-MTL-1", "EU-SE-1"})) is None


def test_one_that_nobody_named_is_not_tried_at_more_than_twice_the_price_of_the_first() -> None:
    fits = Need("a/model", lambda offer: "" if (offer.memory_bytes or 0) >= 48 * 2**30 else "too small")
    wish = RentWish(provider="sandbox", for_model="a/model")

    found = rank(OFFERS, wish, need=fits)

    first, *others = accepted(found)
    assert others and all(each.usd_per_hour <= 2 * first.usd_per_hour for each in others)
    dear = [each for each in found if "over twice the first one's price: --max-price allows it" in each.refused]
    assert dear and all(each.usd_per_hour > 2 * first.usd_per_hour for each in dear)
    priced = accepted(rank(OFFERS, replace(wish, max_usd_per_hour=9.0), need=fits))
    assert {each.offer.gpu_id for each in priced} >= {each.offer.gpu_id for each in dear}
    named = accepted(rank(OFFERS, RentWish(provider="sandbox", gpus=("A40", "B200"))))
    assert [each.offer.gpu_id for each in named] == ["NVIDIA A40", "NVIDIA B200"]
