"""The simulated nvidia-smi of a simulated pod: the file with its GPUs' state, in the forms that programs ask for.

Run as a program: STATE_FILE and then nvidia-smi's own arguments. Standard library only.
"""

from __future__ import annotations

import sys

MIB_FIELDS = {"memory.total", "memory.used", "memory.free"}
UNITS = {
    "utilization.gpu": " %", "utilization.memory": " %", "power.draw": " W", "power.limit": " W",
    "memory.total": " MiB", "memory.used": " MiB", "memory.free": " MiB", "used_memory": " MiB",
}  # fmt: skip


def main(path: str, options: list[str]) -> int:
    """Answer, and the exit status."""
    machine, cards = read(path)
    if machine.get("init", "0") != "0":
        sys.stdout.write("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. (simulated)\n")
        return 9
    words = dict(option.partition("=")[::2] for option in options)
    form = words.get("--format", "csv").split(",")
    if "--query-gpu" in words:
        fields = words["--query-gpu"].split(",")
        rows = [[figure(card, index, field, machine) for field in fields] for index, card in enumerate(cards)]
    elif "--query-compute-apps" in words:
        fields = words["--query-compute-apps"].split(",")
        rows = [
            [{"gpu_uuid": card["uuid"], "pid": pid, "used_memory": used}.get(field, "[N/A]") for field in fields]
            for card in cards
            for pid, used in holders(card)
        ]
    elif "-L" in options or "--list-gpus" in options:
        for index, card in enumerate(cards):
            sys.stdout.write(f"GPU {index}: {card['name']} (UUID: {card['uuid']})\n")
        return 0
    else:
        header(machine, cards)
        return 0
    if "noheader" not in form:
        sys.stdout.write(", ".join(fields) + "\n")
    for row in rows:
        named = zip(fields, row, strict=True)
        units = {} if "nounits" in form else UNITS
        sys.stdout.write(", ".join(value + units.get(field, "") for field, value in named) + "\n")
    return 0


def read(path: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What is said of the machine, and of each card; the processes of a card stand behind blanks."""
    machine: dict[str, str] = {}
    cards: list[dict[str, str]] = []
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            key, _, rest = line.partition(" ")
            if key != "card":
                machine[key] = rest
                continue
            index, name, value = rest.split(" ", 2)
            while len(cards) <= int(index):
                cards.append({})
            card = cards[int(index)]
            card[name] = card.get(name, "") + " " + value if name == "process" else value
    return machine, cards


def holders(card: dict[str, str]) -> list[tuple[str, str]]:
    """Process and MiB of each that holds memory of a card."""
    found = [each.partition(":") for each in card.get("process", "").split()]
    return [(pid, used) for pid, _, used in found]


def figure(card: dict[str, str], index: int, field: str, machine: dict[str, str]) -> str:
    """One field of one card."""
    used = sum(int(mib) for _, mib in holders(card))
    total = int(card["total_mib"])
    figures = {
        "index": str(index), "name": card["name"], "uuid": card["uuid"], "count": "1",
        "utilization.gpu": card["utilization"], "utilization.memory": str(round(100 * used / total)),
        "memory.total": str(total), "memory.used": str(used), "memory.free": str(total - used),
        "temperature.gpu": card["celsius"], "power.draw": f"{int(card['milliwatts']) / 1000:.2f}",
        "power.limit": f"{int(card['limit_milliwatts']) / 1000:.2f}", "driver_version": machine["driver"],
        "compute_cap": "8.6",
    }  # fmt: skip
    return figures.get(field, "[N/A]")


def header(machine: dict[str, str], cards: list[dict[str, str]]) -> None:
    """What it prints without being asked for anything."""
    version = int(machine["cuda"])
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    sys.stdout.write(
        f"NVIDIA-SMI {machine['driver']} (simulated)  Driver Version: {machine['driver']}  CUDA Version: {cuda}\n"
    )
    for index, card in enumerate(cards):
        used = sum(int(mib) for _, mib in holders(card))
        sys.stdout.write(f"{index}  {card['name']}  {used}MiB / {card['total_mib']}MiB  {card['utilization']}%\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
