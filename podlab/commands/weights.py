"""`model`, as far as files are meant: finding them on the hub, bringing them to a pod, checking and deleting them."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

STORED = Operand("model", "a model on the pod, as `model files` names it, or a name of the catalog", values="models")
HUB_MODEL = Operand("model", "a name of the catalog, OWNER/REPO, or hf:OWNER/REPO/FILE.gguf", values="models")

VERBS = (
    Verb(
        "model", "search", "Search the hub for models that write text, the most downloaded first.", "weights.search",
        detail="Set HF_ENDPOINT for another hub. What would fit is judged by the weights alone; `model fit` is exact.",
        operands=(Operand("text", "words to look for"),),
        options=(
            Option("--format", "only these files", values=("gguf", "safetensors")),
            Option("--limit", "how many at most, 100 the most", kind=int, metavar="N", default=20),
        ),
        example="%model search qwen3 --format gguf", on_pod=True,
    ),
    Verb(
        "model", "download", "Download a model on the pod itself, checked against the hub's SHA-256.",
        "weights.download",
        detail="It goes to where `model start` looks for it, and goes on when you interrupt or disconnect. The same "
        "command again goes on where it was cut. A whole repository comes without second forms of the same weights.",
        operands=(HUB_MODEL,),
        options=(
            Option("--revision", "a branch, a tag or a commit (default: main)", metavar="REVISION"),
            Option("--include", "of a repository only files like this one, such as '*Q4_K_M*'", metavar="GLOB",
                   many=True),
            Option("--exclude", "of a repository no files like this one", metavar="GLOB", many=True),
            Option("--force", "fetch it anew although it is there", kind=bool),
            Option("--detach", "do not watch it", kind=bool),
        ),
        example="%model download Qwen/Qwen3-0.6B", on_pod=True, changes=True,
    ),
    Verb(
        "model", "downloads", "List downloads on all pods, or watch them.", "weights.downloads",
        options=(Option("--live", "watch until none is left, a bar for each file", kind=bool),),
        example="%model downloads --live", on_pod=True,
    ),
    Verb(
        "model", "files", "List the models whose files are on a pod, or one model's files.", "weights.files",
        detail="The names are what `model start` takes. `podlab model list --files` shows the same.",
        operands=(Operand("model", "the model whose files are meant", "?", values="models"),),
        example="%model files", on_pod=True,
    ),
    Verb(
        "model", "verify", "Hash a model's files on its pod, and say which are damaged.", "weights.verify",
        detail="They are held against the hub's sums, or without it against those they were checked by when they "
        "came. Ends with 1 where a file is not what it should be; the next download fetches only that one.",
        operands=(STORED,), example="%model verify Qwen/Qwen3-0.6B", on_pod=True,
    ),
    Verb(
        "model", "delete", "Delete a model's files on a pod; one in use is refused.", "weights.delete",
        operands=(STORED,), example="%model delete Qwen/Qwen3-0.6B", on_pod=True, changes=True,
    ),
    Verb(
        "model", "usage", "Show what takes the room for models on a pod, and when each was last used.",
        "weights.usage",
        detail="The standard cache of huggingface_hub there is shown too; podlab never writes to it.",
        example="%model usage", on_pod=True,
    ),
    Verb(
        "model", "cache", "Show or set how much the models of a pod may take.", "weights.cache",
        detail="A download or a start that would exceed it deletes, once you agree, what was not used for longest: "
        "never a model in use. The quota is kept on the pod and holds for everybody.",
        options=(Option("--quota", "such as 200GB; none for as much as there is room", metavar="SIZE"),),
        example="%model cache --quota 200GB", on_pod=True, changes=True,
    ),
    Verb(
        "model", "convert", "Make a GGUF file of a model in safetensors, on its pod.", "weights.convert",
        detail="It knows models of the Llama, Mistral, Qwen2, Qwen3 and Gemma 3 kinds (dense ones that read text) with "
        "a tokenizer of byte-level or SentencePiece's BPE, and says why not another. The result is a model of the pod: "
        "pod:/PATH.gguf.",
        operands=(STORED,),
        options=(
            Option("--to", "what to make", values=("gguf",), default="gguf"),
            Option("--quant", "what its weights are kept in", values=("q8_0", "f16", "bf16", "f32"), default="q8_0"),
            Option("--force", "make it anew although it is there", kind=bool),
        ),
        example="%model convert HuggingFaceTB/SmolLM2-360M-Instruct --to gguf --quant q8_0", on_pod=True, changes=True,
    ),
)  # fmt: skip
