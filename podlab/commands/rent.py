"""`pod`, as far as pods are rented: what a company offers, renting, what it costs, and the certain end of it."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

PROVIDER = Option("--provider", "the company that is meant (default: the setting provider)", metavar="NAME",
                  values="providers")  # fmt: skip
RENTED = Operand("pod", "the rented pod's name (default: the pod in use)", "?", values="rentals")
CLOUD = Option("--cloud", "whose machines: the company's own (secure), other people's (community), or any",
               values=("secure", "community", "any"))  # fmt: skip
REGION = Option("--region", "only these data centres, or all whose names begin so, such as EU", metavar="REGION",
                values="datacenters", many=True)  # fmt: skip
MAX_PRICE = Option("--max-price", "the most dollars an hour", metavar="DOLLARS")
FOR = Option("--for", "a model that has to fit", metavar="MODEL", values="models")
COUNT = Option("--count", "how many GPUs in one machine (default: 1, or as many as the model needs)", kind=int,
               metavar="N")  # fmt: skip
GPU = Option("--gpu", "a kind of GPU, or several in the order to be tried", metavar="GPU", values="gpus", many=True)
HOST_KEY = Option("--host-key", "the fingerprint its host key must have", metavar="SHA256:...")
LIMITS = (
    Option("--budget", "what the pod may cost in its whole life, in dollars, or off", metavar="DOLLARS"),
    Option("--ttl", "how long it may live, such as 2h, or off", metavar="TIME"),
    Option("--idle", "how long it may be idle, such as 20m, or off", metavar="TIME"),
    Option("--lease", "how long it lives without word from this computer", metavar="TIME"),
)
MACHINE = (
    GPU, FOR, COUNT, CLOUD, REGION, MAX_PRICE,
    Option("--cuda", "the oldest CUDA its driver has to run (default: what the image needs)", metavar="VERSION"),
    Option("--disk", "the container's own disk, in GB", metavar="GB"),
    Option("--persistent", "a disk that lives as long as the pod, in GB", metavar="GB"),
    Option("--volume", "a network volume, by name or id: it outlives the pod", metavar="VOLUME"),
    Option("--mount", "where that disk or volume is on the pod", metavar="PATH"),
    Option("--image", "the container image", metavar="IMAGE"),
    Option("--template", "a template of the company instead of an image, by name or id", metavar="TEMPLATE"),
    Option("--registry", "a login to the image's registry that the company keeps", metavar="REGISTRY"),
    Option("--port", "a port to open beside SSH: 8000/http, 9000/tcp", metavar="PORT", many=True),
    Option("--env", "a variable of the container; the company shows it in every list, so no secret",
           metavar="NAME=VALUE", many=True),
    Option("--spot", "refused: no company that podlab knows has spot pods any more", kind=bool),
)  # fmt: skip
_ENDS = "What ends it by itself: the setting, unless --ttl, --budget, --idle or --lease say otherwise."

VERBS = (
    Verb(
        "pod", "offers", "List what a company rents out now: price, memory, stock, where.", "offers.offers",
        detail="Prices are for all GPUs of a machine together, without its disk. With --for each kind of GPU is shown "
        "with the smallest number that the model fits on.",
        operands=(Operand("gpus", "only these GPUs, separated by commas (default: all)", "*", values="gpus"),),
        options=(
            FOR, COUNT, CLOUD, REGION, MAX_PRICE,
            Option("--min-memory", "the least memory of one GPU, such as 24GB", metavar="SIZE"),
            Option("--sort", "what comes first: cheap, large, or in stock", default="price",
                   values=("price", "memory", "stock")),
            Option("--all", "also what has no stock, and what the model does not fit on", kind=bool),
            PROVIDER,
        ),
        example="%pod offers --for qwen3-8b --max-price 2 --sort stock",
    ),
    Verb(
        "pod", "plan", "Show which machines a create would try, in order, why not the others, and what it could cost.",
        "rent.plan",
        detail=f"Nothing is rented. {_ENDS}",
        options=(*MACHINE, *LIMITS, PROVIDER), example="%pod plan --gpu A40,L40S --ttl 2h",
    ),
)  # fmt: skip
