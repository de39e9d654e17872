"""`pod`, as far as pods are rented: what a company offers, renting, what it costs, and the certain end of it."""

from __future__ import annotations

from podlab.commands.verb import ENDED_LIMIT, Operand, Option, Verb

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
REGISTRY = Option("--registry", "a login to the image's registry that the company keeps", metavar="REGISTRY",
                  values="registries")  # fmt: skip
PORT = Option("--port", "a port to open beside SSH: 8000/http, 9000/tcp", metavar="PORT", many=True)
ENV = Option("--env", "a variable of the container; the company shows it in every list, so no secret",
             metavar="NAME=VALUE", many=True)  # fmt: skip
MACHINE = (
    GPU, FOR, COUNT, CLOUD, REGION, MAX_PRICE,
    Option("--cuda", "the oldest CUDA its driver has to run (default: what the image needs)", metavar="VERSION"),
    Option("--disk", "the container's own disk, in GB", metavar="GB"),
    Option("--persistent", "a disk that lives as long as the pod, in GB", metavar="GB"),
    Option("--volume", "a network volume, by name or id: it outlives the pod", metavar="VOLUME", values="volumes"),
    Option("--mount", "where that disk or volume is on the pod", metavar="PATH"),
    Option("--image", "the container image", metavar="IMAGE"),
    Option("--template", "a template of the company instead of an image, by name or id", metavar="TEMPLATE",
           values="templates"),
    REGISTRY, PORT, ENV,
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
    Verb(
        "pod", "create", "Rent a pod: walk down the list until one is had, and bring it to where SSH and CUDA work.",
        "rent.create",
        detail="It shows what it costs an hour, its cap, its deadline and the worst case, and needs a yes or --yes; "
        "it is refused when the price moved meanwhile. What does not start is ended before another is tried. "
        "With --dry-run it shows the plan. The host key is checked against the company's log stream; where that "
        f"does not show it, it needs --host-key or a yes of its own. {_ENDS}",
        operands=(Operand("name", "what to call it (default: podlab-DATE-NNN)", "?"),),
        options=(
            *MACHINE, *LIMITS,
            Option("--wait", "how long to wait for stock, such as 30m, at the price that --max-price allows",
                   metavar="TIME"),
            Option("--interactive", "choose the machine from a list in the terminal", kind=bool), HOST_KEY, PROVIDER,
        ),
        example="%pod create lab --gpu A40 --ttl 2h --budget 2 --yes", changes=True,
    ),
    Verb(
        "pod", "start", "Start a stopped pod, or rent the same anew where its machine has no free GPU.", "rent.start",
        detail="It asks its price. Rented anew is only what has its files on a network volume, and that asks again: "
        "the old machine is ended first. A start that goes wrong is stopped again, and not ended.",
        operands=(RENTED,), options=(HOST_KEY,), example="%pod start lab", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "resume", "The same as pod start.", "rent.start",
        operands=(RENTED,), options=(HOST_KEY,), example="%pod resume lab", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "stop", "Stop a rented pod: its GPU is given back, a persistent disk is billed on.", "rent.stop",
        detail="Files on the container's own disk are lost, about which it asks where the pod has no other. A stopped "
        "pod may find no free GPU when it is started again.",
        operands=(RENTED,), example="%pod stop lab", on_pod=True, changes=True, despite_config=True,
    ),
    Verb(
        "pod", "terminate", "End rented pods for good, and stay until their company has said twice that they are gone.",
        "ending.terminate",
        detail="Network volumes are not touched, and are billed on. Interrupting does not take it back: the keeper "
        "goes on. A pod that podlab did not create is never touched.",
        operands=(Operand("pods", "their names (default: the pod in use)", "*", values="rentals"),),
        options=(
            Option("--all", "every pod of ours that may be billed", kind=bool),
            Option("--no-wait", "do not wait for the proof; the keeper gets it", kind=bool),
        ),
        example="%pod terminate lab --yes", on_pod=True, changes=True, despite_config=True,
    ),
    Verb(
        "pod", "wait", "Wait until a rented pod is ready, each stage with its clock.", "rent.wait",
        detail="Rented, image, container, sshd, CUDA, set up: fed by the company's log stream and by the pod itself.",
        operands=(RENTED,), options=(HOST_KEY,), example="%pod wait lab", on_pod=True,
    ),
    Verb(
        "pod", "extend", "Let a rented pod live longer or cost more; what may cost more asks.", "money.extend",
        detail="--ttl and --budget are added to what it has; --idle replaces.",
        operands=(RENTED,),
        options=(
            Option("--ttl", "how much longer, such as 1h", metavar="TIME"),
            Option("--budget", "how many dollars more", metavar="DOLLARS"),
            Option("--idle", "how long it may be idle, such as 20m, or off", metavar="TIME"),
        ),
        example="%pod extend lab --ttl 1h", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "cost", "Show what rented pods cost: today, this month, in all, and what the company billed.",
        "money.cost",
        detail="Our own figure is the time in each state at its price; the company's bill stands beside it.",
        operands=(Operand("pod", "only this pod (default: all)", "?", values="rentals"),),
        options=(
            Option("--by", "a row for each pod, model or notebook", default="pod", values=("pod", "model", "notebook")),
            Option("--today", "only what cost something today", kind=bool),
            Option("--month", "only what cost something this month", kind=bool),
            ENDED_LIMIT,
        ),
        example="%pod cost --by model --month", despite_config=True,
    ),
    Verb(
        "pod", "panel", "Rented pods with what each costs and what ends it, live and with buttons in a notebook.",
        "panel.panel",
        detail="Opening it holds the ledger against what each company lists, as pod orphans does. Its buttons extend, "
        "stop, start and end a pod, and ask as the commands do. In a terminal it is a table.",
        options=(PROVIDER,), example="%pod panel", despite_config=True,
    ),
    Verb(
        "pod", "orphans", "Hold the ledger against what each company lists: pods of ours that nobody knows, others.",
        "money.orphans",
        detail="Pods that podlab did not create are shown and never touched. Ends with 1 when a pod of ours is billed "
        "and is in no list of this computer.",
        options=(PROVIDER,), example="%pod orphans", despite_config=True,
    ),
    Verb(
        "pod", "claim", "Take a pod of ours that was found orphaned back into the list of pods.", "rent.claim",
        operands=(Operand("pod", "its name or the company's id of it, as `pod orphans` shows it"),),
        example="%pod claim lab", changes=True,
    ),
    Verb(
        "pod", "logs", "Show what a rented pod's company logs of it: the image's pull, its container, its start.",
        "rent.logs",
        operands=(RENTED,),
        options=(
            Option("--source", "only what the container says, or only the company", values=("container", "system")),
            Option("--lines", "how many lines", kind=int, metavar="N", default=50, short="-n"),
            Option("--follow", "go on until interrupted", kind=bool, short="-f"),
        ),
        example="%pod logs lab --follow", on_pod=True, despite_config=True,
    ),
    Verb(
        "pod", "doctor", "Look at all that renting stands on: key, interface, balance, SSH, clock, keeper, ledger.",
        "doctor.doctor",
        detail="Each check that fails says what to do. Ends with 1 when one failed.",
        options=(PROVIDER,), example="%pod doctor", despite_config=True,
    ),
    Verb(
        "pod", "volumes", "List the network volumes of the account, which are billed until they are deleted.",
        "company.volumes", options=(PROVIDER,), example="%pod volumes",
    ),
    Verb(
        "pod", "volumes create", "Rent a network volume, which outlives pods.", "company.volume_create",
        operands=(
            Operand("name", "what to call it"), Operand("where", "its data centre", values="datacenters"),
        ),
        options=(
            Option("--size", "how large, in GB", kind=int, metavar="GB", default=10),
            Option("--tier", "the sort of its disks, where the company has several", metavar="TIER"), PROVIDER,
        ),
        example="%pod volumes create models EU-RO-1 --size 50", changes=True,
    ),
    Verb(
        "pod", "volumes delete", "Delete a network volume and all that is on it.", "company.volume_delete",
        operands=(Operand("volume", "its name or id", values="volumes"),), options=(PROVIDER,),
        example="%pod volumes delete models", changes=True, despite_config=True,
    ),
    Verb(
        "pod", "templates", "List the account's own templates: named images with their settings.", "company.templates",
        options=(Option("--public", "the company's own instead", kind=bool), PROVIDER),
        example="%pod templates --public",
    ),
    Verb(
        "pod", "templates create", "Keep a named image with its settings at the company.", "company.template_create",
        detail="Nothing is billed for it. Rent a pod of it: pod create --template NAME.",
        operands=(Operand("name", "what to call it"),),
        options=(
            Option("--image", "the container image", metavar="IMAGE"),
            Option("--disk", "the container's own disk, in GB", kind=int, metavar="GB"),
            Option("--persistent", "a disk that lives as long as the pod, in GB", kind=int, metavar="GB"),
            Option("--mount", "where that disk is on the pod", metavar="PATH", default="/workspace"),
            REGISTRY, PORT, ENV, PROVIDER,
        ),
        example="%pod templates create lab --image runpod/pytorch:2.8.0 --disk 40 --port 8888/http", changes=True,
    ),
    Verb(
        "pod", "templates delete", "Delete one of the account's own templates; pods made from it stay.",
        "company.template_delete",
        operands=(Operand("template", "its name or id", values="templates"),), options=(PROVIDER,),
        example="%pod templates delete lab", changes=True, despite_config=True,
    ),
    Verb(
        "pod", "registries", "List the logins to container registries that the company keeps.", "company.registries",
        options=(PROVIDER,), example="%pod registries",
    ),
    Verb(
        "pod", "registries add", "Keep a login to a container registry at the company, for private images.",
        "company.registry_add",
        detail="The password or token is typed hidden, or read from standard input. The company shows it to nobody "
        "again, and podlab keeps nothing of it. Use it: pod create --registry NAME.",
        operands=(Operand("name", "what to call it"),),
        options=(Option("--user", "who logs in", metavar="USER"), PROVIDER),
        example="%pod registries add hub --user me", changes=True,
    ),
    Verb(
        "pod", "registries delete", "Have the company forget a login to a container registry.",
        "company.registry_delete",
        operands=(Operand("registry", "its name or id", values="registries"),), options=(PROVIDER,),
        example="%pod registries delete hub", changes=True, despite_config=True,
    ),
    Verb(
        "pod", "keys", "List the SSH public keys that the company puts into pods.", "company.keys",
        detail="podlab sends a key of its own with each pod, and changes none of these.",
        options=(PROVIDER,), example="%pod keys",
    ),
    Verb(
        "pod", "keys add", "Add an SSH public key to those that the company puts into pods.", "company.key_add",
        detail="The others stay. podlab's own pods need none of them: this is for pods that are rented elsewhere.",
        operands=(
            Operand("file", "a public key, such as ~/.ssh/id_ed25519.pub (default: podlab's own)", "?", values="files"),
        ),
        options=(PROVIDER,), example="%pod keys add ~/.ssh/id_ed25519.pub", changes=True,
    ),
    Verb(
        "pod", "account", "Show the account's balance, what it spends now, and how long that lasts.", "company.account",
        options=(PROVIDER,), example="%pod account",
    ),
)  # fmt: skip
