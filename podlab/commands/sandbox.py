"""`sandbox`: a pretended company to rent from, for trying, tutorials and tests. Its money is none."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb

VERBS = (
    Verb(
        "sandbox", "up", "Open a pretended company on this computer: pods are its processes, its money is none.",
        "sandbox.up",
        detail="Rent from it with --provider sandbox, or make it the usual one: podlab config set provider sandbox. "
        "It speaks RunPod's interface, its pods are reached by real SSH, their GPUs are simulated. "
        "Open already, it stays as it is.",
        options=(
            Option("--speed", "how many times as fast as time the company's bill runs; podlab reads it once an "
                   "hour, and counts by the clock itself", kind=float, metavar="N", default=1.0),
            Option("--balance", "the pretended dollars on the account", kind=float, metavar="DOLLARS", default=25.0),
        ),
        example="podlab sandbox up --speed 60", changes=True,
    ),
    Verb(
        "sandbox", "down", "Close the pretended company: its pods and all that runs on them end.", "sandbox.down",
        example="podlab sandbox down", changes=True, despite_config=True,
    ),
    Verb(
        "sandbox", "status", "Show whether it is open, what it has, and what goes wrong on purpose.", "sandbox.status",
        example="podlab sandbox status",
    ),
    Verb(
        "sandbox", "fault", "Have something go wrong there, to see what becomes of it; without a name list what can.",
        "sandbox.fault",
        operands=(Operand("name", "the fault", "?", values="faults"),),
        options=(
            Option("--times", "how often (default: once; 0: until --clear)", kind=int, metavar="N", default=1),
            Option("--after", "how many requests are left alone before", kind=int, metavar="N", default=0),
            Option("--seconds", "how long, for a fault that takes time", kind=float, metavar="S", default=30.0),
            Option("--count", "how many, for a fault that takes a number", kind=int, metavar="N", default=1),
            Option("--pod", "only this pod, by the company's id", metavar="ID", default=""),
            Option("--clear", "nothing goes wrong from now on", kind=bool),
        ),
        example="podlab sandbox fault created-500", changes=True,
    ),
    Verb(
        "sandbox", "money", "Put pretended dollars on the account.", "sandbox.money",
        operands=(Operand("dollars", "how many"),), example="podlab sandbox money 10", changes=True,
    ),
)  # fmt: skip
