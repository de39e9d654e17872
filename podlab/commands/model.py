"""`model`: from a name in the catalog to a running endpoint, and back."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

NAME = Operand("name", "the endpoint's name", values="endpoints")
HOST_KEY = Option("--host-key", "the fingerprint the machine must show on first contact", metavar="SHA256:...")

VERBS = (
    Verb(
        "model", "catalog", "List the models podlab knows by name that the pod in use can serve, or show one.",
        "catalog.catalog",
        detail="With a model's name: all that is known of it, and where each number is from. "
        "Without --all only what fits the pod; with it also the others, each with its reason.",
        operands=(Operand("text", "a model's name, or words to look for", "?", values="models"),),
        options=(
            Option("--all", "also those that do not fit, and why", kind=bool),
            Option("--engine", "only those that this engine serves", values=("llamacpp", "vllm")),
        ),
        example="%model catalog qwen3 --all", on_pod=True,
    ),
    Verb(
        "model", "register", "Give a model of your own a name, in models.toml of PODLAB_HOME.", "catalog.register",
        detail="Your names come before podlab's own. Recipes and further fields are written into that file by hand.",
        operands=(Operand("name", "what to call it"),),
        options=(
            Option("--source", "where it is: hf:OWNER/REPO, hf:OWNER/REPO/FILE.gguf, file:, folder: or pod:",
                   metavar="SOURCE"),
            Option("--summary", "a line about it", metavar="TEXT"),
            Option("--engine", "what serves it (default: what suits its files)", values=("llamacpp", "vllm")),
            Option("--parameters", "how many weights it has, such as 8B", metavar="COUNT"),
            Option("--context", "tokens it was made for, such as 32k", metavar="TOKENS"),
            Option("--licence", "its licence", metavar="NAME"),
            Option("--gated", "the hub wants a token for it", kind=bool),
            Option("--tool-parser", "the name for vLLM's --tool-call-parser", metavar="NAME"),
            Option("--reasoning-parser", "the name for vLLM's --reasoning-parser", metavar="NAME"),
        ),
        example="%model register mine --source hf:OWNER/REPO --parameters 8B", changes=True,
    ),
    Verb(
        "model", "unregister", "Take a model of your own out of models.toml again.", "catalog.unregister",
        operands=(Operand("name", "the name it was given", values="models"),),
        example="%model unregister mine", changes=True,
    ),
    Verb(
        "model", "start", "Start a model on a pod and wait until it answers.", "model.start",
        detail="A .gguf file, hf:OWNER/REPO/FILE.gguf and OWNER/REPO work as MODEL too. Starting what runs already "
        "shows it. Ctrl-C stops watching, not the server. --on A,B starts replicas NAME.1 and NAME.2.",
        operands=(Operand("model", "a model's name", values="models"),),
        options=(
            Option("--name", "what to call the endpoint (default: the model's name)", metavar="NAME"),
            Option("--port", "the port on the pod (default: any free one)", kind=int, metavar="PORT"),
            Option("--context", "tokens each conversation may hold, such as 8192, 32k or 1m (default: what fits)",
                   metavar="TOKENS"),
            Option("--gpus", 'how many GPUs, or which: 2, or 0,3, or "0," for that one (default: the fewest that fit)',
                   metavar="GPUS"),
            Option("--memory", "the share of each GPU's memory the engine may take, such as 0.9", metavar="SHARE"),
            Option("--slots", "requests served at the same time (default: 1, for very small models 4)", kind=int,
                   metavar="N"),
            Option("--gpu-layers", "layers kept on the GPU (default: as many as fit)", kind=int, metavar="N"),
            Option("--backend", "what computes (default: the best the engine's build has)",
                   values=("cpu", "cuda", "metal")),
            Option("--engine", "what serves it (default: what suits its files); sglang, tgi, trtllm are unverified",
                   values=("llamacpp", "vllm", "sglang", "tgi", "trtllm")),
            Option("--engine-version", "that version of the engine (default: the newest there, else the tested one)",
                   metavar="VERSION"),
            Option("--python", "an environment of yours on the pod that has the engine; it is never changed",
                   metavar="PATH"),
            Option("--env", "a variable for the engine; may be given several times", metavar="NAME=VALUE", many=True),
            Option("--force", "start although a check says that it cannot work or does not fit", kind=bool),
            Option("--detach", "do not wait until it answers", kind=bool),
            HOST_KEY,
        ),
        rest="options of the engine itself, as its own documentation names them",
        example="%model start tiny --name helper -- --threads 2", on_pod=True, changes=True,
    ),
    Verb(
        "model", "fit", "Say whether a model fits on GPUs, what takes their memory, and what would fit.", "fit.fit",
        detail="Reads the model's configuration and the headers of its files, never its weights. Without --gpus the "
        "pod's own GPUs are judged, by what is free on them now.",
        operands=(Operand("model", "a model's name, OWNER/REPO of the Hub, a folder or a .gguf file",
                          values="models"),),
        options=(
            Option("--gpus", "GPUs that need not be there, such as \"2x RTX 4090\" or H100:8", metavar="GPUS"),
            Option("--context", "tokens each request may hold, such as 8192, 32k or 1m (default: the model's own)",
                   metavar="TOKENS"),
            Option("--concurrency", "requests of that context at the same time", kind=int, metavar="N", default=1),
            Option("--memory", "vLLM's share of each GPU's memory (default: 0.92)", metavar="SHARE"),
            Option("--cache", "what keys and values are kept in", values=("auto", "fp8")),
            Option("--expert-parallel", "whole experts on each GPU instead of a slice of all", kind=bool),
        ),
        example="%model fit Qwen/Qwen3-32B --gpus \"2x RTX 4090\" --context 16k", on_pod=True,
    ),
    Verb(
        "model", "attach", "Take a server that somebody else runs among the endpoints.", "model.attach",
        detail="It is asked what it serves. list, chat, url, show and bench then know it; start and stop do not.",
        operands=(Operand("url", "the base URL of its OpenAI API, ending in /v1"),),
        options=(
            Option("--key-env", "the secret or environment variable that is its key", metavar="NAME", values="secrets"),
            Option("--name", "what to call it (default: its model's name)", metavar="NAME"),
            Option("--model", "which of its models (default: the only one)", metavar="MODEL"),
            Option("--key-in-clear", "let the key go to another machine over plain HTTP", kind=bool),
        ),
        example="%model attach http://127.0.0.1:8000/v1 --name theirs", changes=True,
    ),
    Verb(
        "model", "adopt", "Put a model server that runs on a pod without a record on record.", "model.adopt",
        detail="Either an orphan of podlab's, by the name or id that `model list` shows, or with --pid a server that "
        "somebody else started there. It is then shown, reached and stopped like any other, and cannot be restarted.",
        operands=(Operand("orphan", "the orphan's name or id", "?", values="endpoints"),),
        options=(
            Option("--pid", "the process of a server that is not podlab's, on the pod", kind=int, metavar="PID"),
            Option("--name", "what to call it (default: its model's name)", metavar="NAME"),
            Option("--key-env", "the secret or environment variable that is its key", metavar="NAME", values="secrets"),
        ),
        example="%model adopt --pid 4711 --on box --name theirs", on_pod=True, changes=True,
    ),
    Verb(
        "model", "detach", "Forget a server that was attached; it goes on.", "model.detach",
        operands=(NAME,), example="%model detach theirs", changes=True,
    ),
    Verb(
        "model", "list", "List the endpoints of all pods, each with a state checked just now.", "model.list_endpoints",
        options=(
            Option("--all", "also those that were stopped", kind=bool),
            Option("--files", "the models whose files are on the pod instead, as `model files` does", kind=bool),
        ),
        example="%model list", on_pod=True,
    ),
    Verb(
        "model", "show", "Show an endpoint: its state and why, its process, its command.", "model.show",
        operands=(NAME,), example="%model show tiny", on_pod=True,
    ),
    Verb(
        "model", "logs", "Show the end of an endpoint's log.", "model.logs",
        operands=(NAME,),
        options=(
            Option("--lines", "how many lines at most (default: 50; with --since as many as there are)", kind=int,
                   metavar="N", short="-n"),
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
        "model", "metrics", "Show what an endpoint's server is doing: requests, KV cache, tokens a second.",
        "model.metrics",
        detail="Its own counters are read twice; tokens a second are what was added between. Nothing is asked of the "
        "model.",
        operands=(Operand("name", "the endpoint's name (default: the only one)", "?", values="endpoints"),),
        options=(
            Option("--over", "how long to count for tokens a second, such as 500ms or 10s (default: 1s)",
                   metavar="TIME"),
        ),
        example="%model metrics tiny --over 5s", on_pod=True,
    ),
    Verb(
        "model", "bench", "Measure how fast an endpoint answers: TTFT, TPOT, ITL, throughput, goodput.", "bench.bench",
        detail="Definitions are those of vLLM's own benchmark. Answers have a fixed length where the server allows it.",
        operands=(Operand("name", "the endpoint's name (default: the only one)", "?", values="endpoints"),),
        options=(
            Option("--concurrency", "requests under way at once; several levels as 1,4,16", metavar="N[,N]"),
            Option("--rate", "requests a second instead, started at random moments; several as 1,2,4",
                   metavar="R[,R]"),
            Option("--requests", "how many requests a level", kind=int, metavar="N", default=32),
            Option("--input", "about how many tokens each prompt has", kind=int, metavar="TOKENS", default=64),
            Option("--output", "how many tokens each answer has", kind=int, metavar="TOKENS", default=64),
            Option("--goodput", "also count what kept these limits, such as ttft:200ms,tpot:50ms", metavar="LIMITS"),
            Option("--seed", "another one: other prompts and moments", kind=int, metavar="N", default=0),
        ),
        example="%model bench tiny --concurrency 1,4,16", on_pod=True,
    ),
    Verb(
        "model", "smoke", "See that an endpoint does what an OpenAI-compatible server should.", "bench.smoke",
        detail="Health, models, an answer, streaming, stop string, seed, cancelling, tools if claimed, metrics.",
        operands=(Operand("name", "the endpoint's name (default: the only one)", "?", values="endpoints"),),
        example="%model smoke tiny", on_pod=True,
    ),
    Verb(
        "model", "explain", "Say why a model server failed, from any log of it.", "explain.explain",
        detail="The log may be podlab's, or of a server that somebody started by hand. `-` reads standard input.",
        operands=(Operand("file", "the log; - for standard input", values="files"),),
        options=(Option("--engine", "what wrote it (default: guessed from the log)",
                        values=("llamacpp", "vllm", "sglang", "tgi", "trtllm")),),
        example="%model explain server.log",
    ),
    Verb(
        "model", "matrix", "Find out which models run on which engines: start, try, measure and stop each.",
        "bench.matrix",
        detail="The table holds only what this run has tried. An engine that does not fit a model's files is left out.",
        operands=(Operand("models", "models' names (default: tiny)", "*", values="models"),),
        options=(
            Option("--engines", "engines, with commas between (default: each model's own)", metavar="E[,E]"),
            Option("--backends", "backends, with commas between (default: the engine's choice)", metavar="B[,B]"),
            Option("--python", "an environment of yours on the pod, for the engines that run in one", metavar="PATH"),
            Option("--save", "also write the table to this Markdown file", metavar="FILE", values="files"),
        ),
        example="%model matrix tiny smollm2-360m --backends cpu", on_pod=True, changes=True,
    ),
    Verb(
        "model", "url", "Show how a program reaches an endpoint: base URL, key, exports, a snippet.", "model.url",
        detail="It says how long the address works: with a keeper, after this command has ended too. "
        "The key shows only with --show-key.",
        operands=(NAME,), options=(Option("--show-key", "print the key, and nothing else", kind=bool),),
        example="%model url tiny", on_pod=True,
    ),
)  # fmt: skip
