"""podlab's own things: `config`, `secret`, `logs`."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

SETTING = Operand("name", "the setting", values="settings")
SECRET = Operand("name", "the secret, as its environment variable is called", values="secrets")

VERBS = (
    Verb(
        "", "init", "Get ready to rent: a key that is checked, an SSH key, limits on what pods may cost.",
        "doctor.init",
        detail="It asks, with what is in force as the answer that Enter gives; options answer in advance. The key is "
        "typed hidden, shown to the company, and kept only when it is accepted. Repeat it at any time. "
        "With --provider sandbox it needs no account and no network.",
        options=(
            Option("--provider", "the company to rent from: runpod, or sandbox (simulated)", metavar="NAME",
                   values="providers"),
            Option("--gpu", "GPUs that a create tries, in this order", metavar="GPU", values="gpus", many=True),
            Option("--budget", "what a pod may cost in its whole life, in dollars, or off", metavar="DOLLARS"),
            Option("--ttl", "how long a pod may live, such as 2h, or off", metavar="TIME"),
            Option("--idle", "how long a pod may be idle, such as 20m, or off", metavar="TIME"),
        ),
        example="podlab init --provider sandbox", changes=True, despite_config=True,
    ),
    Verb(
        "config", "show", "Show the settings, and where each comes from.", "own.config_show",
        operands=(Operand("name", "one setting", "?", values="settings"),), example="podlab config show",
        despite_config=True,
    ),
    Verb(
        "config", "set", "Write a setting to config.toml.", "own.config_set",
        operands=(SETTING, Operand("value", "its value")), example="podlab config set chat.max_tokens 1024",
        changes=True, despite_config=True,
    ),
    Verb(
        "config", "edit", "Open config.toml in your editor.", "own.config_edit", example="podlab config edit",
        despite_config=True,
    ),
    Verb(
        "config", "path", "Show where config.toml is.", "own.config_path", example="podlab config path",
        despite_config=True,
    ),
    Verb(
        "secret", "set", "Keep a secret. Its value is typed hidden, or comes from standard input.", "own.secret_set",
        operands=(SECRET,), example="podlab secret set HF_TOKEN", changes=True,
    ),
    Verb("secret", "list", "List the secrets by name.", "own.secret_list", example="podlab secret list"),
    Verb(
        "secret", "remove", "Remove a secret's file.", "own.secret_remove",
        operands=(SECRET,), example="podlab secret remove HF_TOKEN", changes=True,
    ),
    Verb(
        "", "completion", "Print the script that gives a shell its tab completion.", "completion.script",
        detail='In bash and zsh: eval "$(podlab completion bash)". For every new shell, put that line into ~/.bashrc.',
        operands=(Operand("shell", "which shell", values=("bash", "zsh", "fish")),),
        example="podlab completion bash",
    ),
    Verb(
        "", "logs", "Show the end of podlab's own log.", "own.own_logs",
        options=(Option("--lines", "how many lines", kind=int, metavar="N", default=50, short="-n"),),
        example="podlab logs -n 20",
    ),
)  # fmt: skip
