"""Which offers would do, in which order they are tried, and why the others are not. Pure.

    rank(offers, wish, need=...) -> the candidates to be tried, then those refused with a reason each

Names of GPUs are compared token by token with the provider's own, never by substring: an A4000 is no A40. A name that
could mean several is refused, naming them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from podlab.errors import BadArgument
from podlab.gpu_names import tokens_of
from podlab.lab.rent_wish import RentWish
from podlab.renting import Offer
from podlab.units import memory_text

DISK_USD_PER_GB_MONTH = 0.10
"""Of a running pod's container and persistent disk: https://docs.runpod.io/pods/pricing (storage), 2026-08-20."""
STOPPED_USD_PER_GB_MONTH = 0.20
"""Of a stopped pod's persistent disk; its container disk is gone, and counted all the same until it is terminated."""
HOURS_PER_MONTH = 720.0
MOST_TIMES = 2.0
"""How much dearer than the first choice one may be that nobody named, and for which nobody named a price."""
_STOCKS = {"high": 0, "medium": 1, "low": 2, "unknown": 3, "none": 4}
_SOCKETS = {"hbm3": "sxm", "hbm3e": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm"}
"""What stands in a provider's name where people say SXM: the H100 with HBM3 is the SXM one."""


@dataclass(frozen=True)
class Need:
    """What a model asks of a machine. `refusal` says of an offer why the model does not fit on it, or ""."""

    model: str
    refusal: Callable[[Offer], str]


@dataclass(frozen=True)
class Candidate:
    """An offer with what it costs in all. `refused` says why it is not tried; "" for one that is."""

    offer: Offer
    usd_per_hour: float
    """While it runs, all GPUs and its disk; 0 where the provider names no price (then it is refused)."""
    disk_usd_per_hour: float
    """The disk's part of that."""
    refused: str = ""
    stopped_usd_per_hour: float = 0.0
    data_centers: tuple[str, ...] = ()
    """Where it is to be looked for; () leaves that to the provider."""
    rank: int = 0
    """The place of its GPU in what was asked for."""

    @property
    def title(self) -> str:
        """'2x NVIDIA A40, secure'."""
        count = f"{self.offer.gpu_count}x " if self.offer.gpu_count > 1 else ""
        return f"{count}{self.offer.gpu}, {self.offer.cloud}"


def rank(offers: Sequence[Offer], wish: RentWish, *, need: Need | None = None) -> tuple[Candidate, ...]:
    """Every offer as a candidate: those to be tried first, in their order; then the refused.

    Raises BadArgument for a name that no offer has, or that could mean several.
    """
    places = _places(offers, wish)
    found = [_candidate(offer, wish, places, need) for offer in offers]
    smallest = _smallest(found, wish, need)
    judged = sorted((_counted(candidate, wish, smallest) for candidate in found), key=_order)
    return tuple(sorted(_affordable(judged, wish), key=_order))


def accepted(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those to be tried."""
    return tuple(candidate for candidate in candidates if not candidate.refused)


def without(candidate: Candidate, bad: frozenset[str]) -> Candidate | None:
    """The candidate kept away from data centers that gave a bad machine; None where nothing is left of it."""
    if not bad:
        return candidate
    known = candidate.data_centers or candidate.offer.data_centers
    left = tuple(place for place in known if place not in bad)
    return replace(candidate, data_centers=left) if left else None


def matching(name: str, gpu_ids: Sequence[str]) -> tuple[str, ...]:
    """The provider's names of GPUs that `name` means: itself, else of the same words, else those with its words.

    Several mean that it has to be asked; () that there is none.
    """
    ids = tuple(dict.fromkeys(gpu_ids))
    if same := tuple(each for each in ids if each.lower() == name.strip().lower()):
        return same
    wanted = _words(name)
    if not wanted:
        return ()
    if equal := tuple(each for each in ids if _words(each) == wanted):
        return equal
    return tuple(each for each in ids if wanted <= _words(each))


def told(gpu_id: str, offers: Sequence[Offer]) -> str:
    """A GPU as people call it, where that means no other one; else as its provider does."""
    name = next((offer.gpu for offer in offers if offer.gpu_id == gpu_id), gpu_id)
    return name if matching(name, [offer.gpu_id for offer in offers]) == (gpu_id,) else gpu_id


def _words(name: str) -> frozenset[str]:
    return frozenset(_SOCKETS.get(word, word) for word in tokens_of(name))


def _places(offers: Sequence[Offer], wish: RentWish) -> dict[str, int]:
    """The provider's names of GPUs that may be taken, each with its place. All with 0 where a model alone decides."""
    ids = [offer.gpu_id for offer in offers]
    if not wish.gpus and wish.for_model is not None:
        return dict.fromkeys(ids, 0)
    places: dict[str, int] = {}
    for place, name in enumerate(wish.gpus or wish.preferences):
        meant = matching(name, ids)
        if len(meant) > 1:
            raise BadArgument(
                f"{name!r} could be several GPUs.",
                hint=f"Write one of them: {', '.join(sorted(told(each, offers) for each in meant))}.",
            )
        if not meant and name in wish.gpus:
            raise BadArgument(f"No GPU of {wish.provider} is called {name!r}.", hint=_known(name, ids))
        for each in meant:
            places.setdefault(each, place)
    return places


def _known(name: str, ids: Sequence[str]) -> str:
    import difflib

    known = sorted(set(ids))
    near = difflib.get_close_matches(name.lower(), [each.lower() for each in known], n=3, cutoff=0.4)
    shown = [each for each in known if each.lower() in near] or known
    return f"It has {', '.join(shown[:8])}. See: podlab pod offers" if shown else "It lists none at the moment."


def _candidate(offer: Offer, wish: RentWish, places: dict[str, int], need: Need | None) -> Candidate:
    running, stopped = _disk(wish)
    candidate = Candidate(
        offer, 0.0 if offer.usd_per_hour is None else offer.usd_per_hour + running, running,
        stopped_usd_per_hour=stopped, data_centers=_where(offer, wish), rank=places.get(offer.gpu_id, len(places)),
    )  # fmt: skip
    reason = next(_refusals(candidate, wish, places, need), "")
    return replace(candidate, refused=reason)


def _disk(wish: RentWish) -> tuple[float, float]:
    """What the disks cost an hour while the pod runs, and while it is stopped. A network volume is billed by itself."""
    sold = wish.disk_gb + (wish.persistent_gb or 0)
    return sold * DISK_USD_PER_GB_MONTH / HOURS_PER_MONTH, sold * STOPPED_USD_PER_GB_MONTH / HOURS_PER_MONTH


def _refusals(candidate: Candidate, wish: RentWish, places: dict[str, int], need: Need | None) -> Iterator[str]:
    """Why it is not tried, the plainest reason first."""
    offer = candidate.offer
    if offer.gpu_id not in places:
        yield "not asked for" if wish.gpus else "not among the preferred GPUs"
    if wish.cloud != "any" and offer.cloud != wish.cloud:
        yield f"its cloud is {offer.cloud}, not {wish.cloud}"
    if offer.max_count is not None and offer.gpu_count > offer.max_count:
        yield f"at most {offer.max_count} of them in a pod"
    if need is not None and (why := need.refusal(offer)):
        yield why
    if offer.usd_per_hour is None:
        yield "no price is given for it"
    if wish.max_usd_per_hour is not None and candidate.usd_per_hour > wish.max_usd_per_hour + 1e-9:
        yield f"${candidate.usd_per_hour:.3f}/h is more than ${wish.max_usd_per_hour:.3f}/h"
    if wish.needed_cuda is not None and offer.cuda_versions and not _has_cuda(offer, wish.needed_cuda):
        yield f"its drivers run CUDA {max(offer.cuda_versions, key=_version)}, and {wish.needed_cuda} is needed"
    if wish.regions and not candidate.data_centers:
        yield f"not in {', '.join(wish.regions)}" if offer.data_centers else "it does not say where it is"
    if offer.stock == "none":
        yield "no stock now"


def _where(offer: Offer, wish: RentWish) -> tuple[str, ...]:
    """The data centers of an offer that are in the wished regions; () where none is, or all are welcome."""
    return tuple(place for place in offer.data_centers if any(lies_in(place, region) for region in wish.regions))


def lies_in(place: str, region: str) -> bool:
    """Whether a data center's name begins with a region's, part by part: EU-RO-1 is in EU, and EUR-IS-1 is not."""
    parts, wanted = place.upper().split("-"), region.upper().split("-")
    return parts[: len(wanted)] == wanted


def _has_cuda(offer: Offer, needed: str) -> bool:
    return any(_version(version) >= _version(needed) for version in offer.cuda_versions)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split("."))


def _smallest(found: Sequence[Candidate], wish: RentWish, need: Need | None) -> dict[tuple[str, str], int]:
    """Of each kind of machine the fewest GPUs that would do, where the number was left open."""
    smallest: dict[tuple[str, str], int] = {}
    if need is None or wish.count is not None:
        return smallest
    for candidate in found:
        kind, count = (candidate.offer.gpu_id, candidate.offer.cloud), candidate.offer.gpu_count
        if not need.refusal(candidate.offer):
            smallest[kind] = min(count, smallest.get(kind, count))
    return smallest


def _counted(candidate: Candidate, wish: RentWish, smallest: dict[tuple[str, str], int]) -> Candidate:
    offer = candidate.offer
    enough = smallest.get((offer.gpu_id, offer.cloud))
    if candidate.refused or enough is None or offer.gpu_count <= enough:
        return candidate
    return replace(candidate, refused=f"{enough} of them {'is' if enough == 1 else 'are'} enough")


def _affordable(judged: Sequence[Candidate], wish: RentWish) -> Sequence[Candidate]:
    """The candidates, without the way down to much dearer ones: that is only for who named GPUs or a price."""
    first = next((each for each in judged if not each.refused), None)
    if first is None or wish.gpus or wish.max_usd_per_hour is not None:
        return judged
    limit, why = MOST_TIMES * first.usd_per_hour, "is over twice the first one's price: --max-price allows it"
    return [
        each if each.refused or each.usd_per_hour <= limit
        else replace(each, refused=f"${each.usd_per_hour:.3f}/h {why}")
        for each in judged
    ]  # fmt: skip


def _order(candidate: Candidate) -> tuple[bool, int, float, int, str]:
    offer = candidate.offer
    return bool(candidate.refused), candidate.rank, candidate.usd_per_hour, _STOCKS[offer.stock], offer.gpu_id


def memory_refusal(offer: Offer, needed_bytes: int) -> str:
    """Why the GPUs of an offer do not hold so much, or "". For a model of which only the weights are known."""
    if offer.memory_bytes is None:
        return "how much memory it has is not known"
    held = offer.memory_bytes * offer.gpu_count
    if held >= needed_bytes:
        return ""
    return f"{memory_text(held)} are too little: {memory_text(needed_bytes)} are needed"
