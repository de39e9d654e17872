"""`model`: from a name in the catalog to a running endpoint, and back."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

NAME = Operand("name", "the endpoint's name", values="endpoints")
HOST_KEY = Option("--host-key", "the fingerprint the machine must show on first contact", metavar="SHA256:...")

VERBS = (
    Verb(
        "model", "catalog", "List the models podlab knows by name, or show one.", "model.catalog",
        operands=(Operand("id", "a model's name", "?", values="models"),), example="%model catalog tiny",
    ),
    Verb(
        "model", "start", "Start a model on a pod and wait until it answers.", "model.start",
        detail="A .gguf file and hf:OWNER/REPO/FILE.gguf work as MODEL too. Starting what runs already shows it.",
        operands=(Operand("model", "a model's name", values="models"),),
        options=(
            Option("--name", "what to call the endpoint (default: the model's name)", metavar="NAME"),
            Option("--port", "the port on the pod (default: any free one)", kind=int, metavar="PORT"),
            Option("--context", "tokens each conversation may hold (default: the model's, 8192 at most)", kind=int,
                   metavar="TOKENS"),
            Option("--slots", "requests served at the same time (default: 1, for very small models 4)", kind=int,
                   metavar="N"),
            Option("--gpu-layers", "layers kept on the GPU (default: as many as fit)", kind=int, metavar="N"),
            Option("--backend", "what computes (default: the best the engine's build has)",
                   values=("cpu", "cuda", "metal")),
            HOST_KEY,
        ),
        rest="options of the engine itself, as its own documentation names them",
        example="%model start tiny --name helper -- --threads 2", on_pod=True, changes=True,
    ),
    Verb(
        "model", "list", "List the endpoints of all pods, each with a state checked just now.", "model.list_endpoints",
        options=(Option("--all", "also those that were stopped", kind=bool),), example="%model list", on_pod=True,
    ),
    Verb(
        "model", "show", "Show an endpoint: its state and why, its process, its command.", "model.show",
        operands=(NAME,), example="%model show tiny", on_pod=True,
    ),
    Verb(
        "model", "logs", "Show the end of an endpoint's log.", "model.logs",
        operands=(NAME,),
        options=(
            Option("--lines", "how many lines", kind=int, metavar="N", default=50, short="-n"),
            Option("--follow", "go on showing what is added, until it ends or you interrupt", kind=bool, short="-f"),
            Option("--since", "only what was added in that time, such as 10m", metavar="TIME"),
        ),
        example="%model logs tiny -n 20", on_pod=True,
    ),
    Verb(
        "model", "stop", "Stop an endpoint, and see that none of its processes is left.", "model.stop",
        operands=(Operand("name", "the endpoint's name", "?", values="endpoints"),),
        options=(Option("--all", "every endpoint of every pod (or of --on POD)", kind=bool),),
        example="%model stop tiny", on_pod=True, changes=True,
    ),
    Verb(
        "model", "restart", "Stop an endpoint and start it again as it was.", "model.restart",
        operands=(NAME,), example="%model restart tiny", on_pod=True, changes=True,
    ),
    Verb(
        "model", "url", "Show how a program reaches an endpoint: base URL, key, exports, a snippet.", "model.url",
        detail="The address keeps working after this command has ended. The key shows only with --show-key.",
        operands=(NAME,), options=(Option("--show-key", "print the key, and nothing else", kind=bool),),
        example="%model url tiny", on_pod=True,
    ),
)  # fmt: skip
