"""Mail accepted while the primary is away: how many a second, at what CPU time, how soon after the dot.

CPU time is that of the least of some rounds: others on the machine (or on its host) only ever add to it.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench.cpu import Meter
from bench.figures import Figures
from bench.house import KNOWN, House

MOST_CPU_MS = {"sqlite": 0.30, "kafka": 0.50}  # a mail of 10 kB on a kept connection
WARM_UP = {"sqlite": 1000, "kafka": 12_000}  # mails; the broker's compiler needs more of them
CONNECTIONS = 100
SIZES = {"10kB": 10_240, "1kB": 1024, "100kB": 102_400, "10MB": 10 * 2**20}
MODES = {"kept": "kept", "new": "new", "tls_new": "tls", "tls_resumed": "resumed"}  # ours, of bench.load


class Rounds(NamedTuple):
    """How often so many mails are sent, over so many connections at a time."""

    rounds: int
    mails: int
    connections: int = CONNECTIONS


def rounds(mode: str, size: str) -> Rounds:
    """Enough for a figure, few enough for a bench of some minutes."""
    if size == "10MB":
        return Rounds(1, 8, 4)
    if mode == "kept":
        return {"10kB": Rounds(8, 3000), "1kB": Rounds(2, 3000), "100kB": Rounds(2, 600, 20)}[size]
    return {"10kB": Rounds(2, 600), "1kB": Rounds(1, 600), "100kB": Rounds(1, 300, 20)}[size]


async def accept(house: House, figures: Figures) -> int:
    """Returns how many mails wait now. The recipient must be known."""
    await house.primary.down()
    await house.load(count=WARM_UP[house.log], connections=CONNECTIONS, recipient=KNOWN)
    accepted = WARM_UP[house.log]
    for mode in MODES:
        for size in SIZES:
            accepted += await _measure(house, figures, mode, size)
    alone = await house.load(count=500, connections=1, recipient=KNOWN)
    for name in ("p50", "p99"):
        figures.add(f"{house.log}.commit.{name}", alone[name], "ms", note="one mail of 10 kB at a time")
    return accepted + 500


async def _measure(house: House, figures: Figures, mode: str, size: str) -> int:
    """CPU time of the round that took least, else the median, each figure by itself."""
    plan = rounds(mode, size)
    took, cpu = [], []
    for _ in range(plan.rounds):
        meter = Meter(house.pids)
        took.append(
            await house.load(
                count=plan.mails,
                mode=MODES[mode],
                connections=plan.connections,
                size=SIZES[size],
                recipient=KNOWN,
            )
        )
        cpu.append({name: taken * 1000 / plan.mails for name, taken in meter.taken().items()})
    name = f"{house.log}.accept_{mode}.{size}"
    rate = plan.mails / median(each["seconds"] for each in took)
    figures.add(f"{name}.rate", rate, "mails/s", note=f"{plan.connections} connections")
    figures.add(f"{name}.commit.p50", median(each["p50"] for each in took), "ms", note="under this load")
    _cpu(figures, house.log, name, cpu)
    return plan.rounds * plan.mails


def _cpu(figures: Figures, log: str, name: str, cpu: Sequence[Mapping[str, float]]) -> None:
    """`cpu`: of each round, process -> ms a mail."""
    least = min(cpu, key=_ours)
    if len(least) > 1:
        for part, taken in least.items():
            young = "the Java runtime compiles the broker while it is young; not in the sum"
            figures.add(f"{name}.cpu.{part}", max(0.0, taken), "ms/mail", note=young * (part == "compiler"))
    most = MOST_CPU_MS[log] if name.endswith("accept_kept.10kB") else None
    note = f"the median of {len(cpu)} rounds is {median(_ours(each) for each in cpu):.3f}"
    figures.add(f"{name}.cpu", _ours(least), "ms/mail", most=most, note=note)


def _ours(cpu: Mapping[str, float]) -> float:
    return sum(taken for part, taken in cpu.items() if part != "compiler")
