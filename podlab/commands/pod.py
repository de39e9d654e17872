"""`pod`: the machines, and what is done on them by hand."""

from __future__ import annotations

from podlab.commands.verb import ENDED_LIMIT, Operand, Option, Verb

POD = Operand("pod", "the pod's name (default: the pod in use)", "?", values="pods")
HOST_KEY = Option("--host-key", "the fingerprint the machine must show on first contact", metavar="SHA256:...")

VERBS = (
    Verb(
        "pod", "add", "Add a machine reached by SSH.", "pod.add",
        operands=(
            Operand("name", "what to call it"),
            Operand("address", 'user@host, "ssh user@host -p 22 -i KEY", or an alias of ~/.ssh/config', "*"),
        ),
        options=(HOST_KEY, Option("--models-path", "where models are kept on it", metavar="PATH")),
        example='%pod add lab "ssh me@gpu.example -p 2222 -i ~/.ssh/id_ed25519"', changes=True,
    ),
    Verb(
        "pod", "import", "Take over the machines that another tool knows: pi pods, autopod, llorch, ~/.ssh/config.",
        "imports.take_over",
        detail="Its file is read, never changed. No machine is reached: its host key is asked about at first contact.",
        operands=(
            Operand("tool", "whose file to read", values=("pi", "autopod", "llorch", "ssh")),
            Operand("names", "only these machines (default: all)", "*"),
        ),
        options=(
            Option("--file", "where its file is (default: where the tool keeps it)", metavar="PATH", values="files"),
            Option("--with-keys", "also keep the API key found in it, as podlab secret set does", kind=bool),
        ),
        example="%pod import pi", changes=True,
    ),
    Verb(
        "pod", "list", "List the pods, whether each answers now, and what the rented ones cost.", "pod.list_pods",
        options=(Option("--all", "also rented pods that have ended, the newest first", kind=bool), ENDED_LIMIT),
        example="%pod list",
        despite_config=True,
    ),
    Verb(
        "pod", "use", "Choose the pod that commands without --on mean, or show it.", "pod.use",
        operands=(Operand("pod", "the pod's name", "?", values="pods"),), example="%pod use local", changes=True,
    ),
    Verb(
        "pod", "show", "Show a pod: its machine, its disk, whether it answers.", "pod.show",
        operands=(POD,), options=(HOST_KEY,), example="%pod show local", on_pod=True, despite_config=True,
    ),
    Verb(
        "pod", "gpu", "Show a pod's GPUs now: use, memory, temperature, power, and who holds them.", "pod.gpu",
        detail="One sample, taken by a program that needs nothing installed there. Ends with 0 when every GPU gave its "
               "figures or there is no GPU, with 1 when one is lost or its driver does not answer.",
        operands=(POD,), options=(HOST_KEY,), example="%pod gpu local", on_pod=True,
    ),
    Verb(
        "pod", "setup", "Bring a bare machine to serving: check it, mount, make room for models, install an engine.",
        "setup.setup",
        detail="Repeat it at any time: it goes on where it was interrupted, and says what is there already. What runs "
               "is not disturbed: each version of an engine has an environment of its own. It needs no root, and "
               "writes into no file of yours. A pod without a package index gets the wheels sent. "
               "Ends with 1 when a check says that serving is impossible.",
        operands=(POD,),
        options=(
            Option("--engine", "vllm, nightly (vLLM's), sglang or llamacpp, or a version: vllm==0.31.0 (default: vllm "
                   "where there are GPUs, else llamacpp)", metavar="ENGINE"),
            Option("--models-path", "where models are kept on it; remembered for the pod", metavar="PATH"),
            Option("--mount", "a line for sh that mounts that path; not run when it is mounted", metavar="COMMAND"),
            Option("--check", "only the checks", kind=bool),
            Option("--force", "go on although a check failed", kind=bool),
            HOST_KEY,
        ),
        example="%pod setup lab --engine vllm --models-path /mnt/models", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "run", "Run a command on a pod and show what it says. It goes on there when the link breaks.", "pod.run",
        operands=(Operand("command", "the command; the first operand ends our options", "..."),),
        options=(
            Option("--detach", "do not wait: give the job's name", kind=bool),
            Option("--lang", "what the cell is written in", values=("bash", "python")),
        ),
        detail="In a terminal the command reads what is piped into ours, 16 MiB at most; all of it is read first.",
        example="%pod run --on lab nvidia-smi\n%%pod run --lang python\nprint('hello from the pod')",
        on_pod=True, changes=True, cell="may",
    ),
    Verb("pod", "jobs", "List the commands that were run on pods.", "pod.list_jobs", example="%pod jobs", on_pod=True),
    Verb(
        "pod", "attach", "Show what a job says, from its start to its end.", "pod.attach",
        operands=(Operand("job", "the job", values="jobs"),), example="%pod attach j-3f9a2c", on_pod=True,
    ),
    Verb(
        "pod", "cancel", "End a job.", "pod.cancel",
        operands=(Operand("job", "the job", values="jobs"),), example="%pod cancel j-3f9a2c", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "shell", "Open an interactive terminal on a pod.", "pod.shell",
        operands=(POD,), options=(HOST_KEY,), example="%pod shell lab", on_pod=True,
    ),
    Verb(
        "pod", "push", "Send a file or a folder to a pod, verified by its SHA-256.", "pod.push",
        operands=(
            Operand("source", "a file or folder here", values="files"),
            Operand("target", "where it goes there (default: the home folder)", "?"),
        ),
        example="%pod push data/ work/data", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "pull", "Bring a file or a folder from a pod, verified by its SHA-256.", "pod.pull",
        operands=(
            Operand("source", "a file or folder there"),
            Operand("target", "where it goes here (default: this folder)", "?", values="files"),
        ),
        example="%pod pull work/results .", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "tunnel open", "Lead a port of this computer to a port of a pod.", "pod.tunnel_open",
        operands=(Operand("port", "the port on the pod"),),
        options=(Option("--local-port", "the port here (default: any free one)", kind=int, metavar="PORT"),),
        example="%pod tunnel open 6006 --on lab", on_pod=True, changes=True,
    ),
    Verb("pod", "tunnel list", "List the open tunnels.", "pod.tunnel_list", example="%pod tunnel list"),
    Verb(
        "pod", "tunnel close", "Close a tunnel.", "pod.tunnel_close",
        operands=(Operand("port", "the port on the pod"),), example="%pod tunnel close 6006", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "rename", "Give a pod another name.", "pod.rename",
        operands=(Operand("name", "its name now", values="pods"), Operand("new_name", "its new name")),
        example="%pod rename lab attic", changes=True,
    ),
    Verb(
        "pod", "remove", "Forget a pod. The machine itself is not touched.", "pod.remove",
        operands=(Operand("name", "the pod's name", values="pods"),), example="%pod remove lab", changes=True,
    ),
)  # fmt: skip
