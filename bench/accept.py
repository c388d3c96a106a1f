"""Mail accepted while the primary is away: how many a second, at what CPU time, how soon after the dot.

CPU time is that of the least of some rounds: others on the machine (or on its host) only ever add to it.
"""

from statistics import median

from bench.cpu import Meter
from bench.figures import Figures
from bench.house import KNOWN, House

MOST_CPU_MS = {"sqlite": 0.4, "kafka": 0.6}
WARM_UP = {"sqlite": 1000, "kafka": 6000}  # mails; the broker's compiler needs more of them
ROUNDS, MAILS = 4, {"kept": 3000, "new": 600}
CONNECTIONS = 40


async def accept(house: House, figures: Figures) -> int:
    """Returns how many mails wait now. The recipient must be known."""
    await house.primary.down()
    await house.load(count=WARM_UP[house.log], recipient=KNOWN)
    accepted = WARM_UP[house.log]
    for mode in ("kept", "new"):
        accepted += await _rounds(house, figures, mode)
    alone = await house.load(count=500, connections=1, recipient=KNOWN)
    for name in ("p50", "p99"):
        figures.add(f"{house.log}.commit.{name}", alone[name], "ms", note="one mail at a time")
    return accepted + 500


async def _rounds(house: House, figures: Figures, mode: str) -> int:
    """CPU time of the round that took least, else the median of ROUNDS, each figure by itself."""
    took, cpu, compiler = [], [], []
    for _ in range(ROUNDS):
        meter = Meter(house.pids)
        took.append(await house.load(count=MAILS[mode], mode=mode, connections=CONNECTIONS, recipient=KNOWN))
        each = {name: taken * 1000 / MAILS[mode] for name, taken in meter.taken().items()}
        compiler.append(each.pop("compiler", 0.0))
        cpu.append(each)
    name = f"{house.log}.accept.{mode}"
    figures.add(
        f"{name}.rate",
        MAILS[mode] / median(each["seconds"] for each in took),
        "mails/s",
        note=f"{CONNECTIONS} connections",
    )
    for part in ("p50", "p99"):
        figures.add(f"{name}.commit.{part}", median(each[part] for each in took), "ms")
    least = min(cpu, key=lambda each: sum(each.values()))
    if len(house.pids) > 1:
        for part in house.pids:
            figures.add(f"{name}.cpu.{part}", least[part], "ms/mail")
    most = MOST_CPU_MS[house.log] if mode == "kept" else None
    note = f"the median of {ROUNDS} rounds is {median(sum(each.values()) for each in cpu):.3f}"
    if "broker" in house.pids:
        young = "the Java runtime compiles the broker while it is young; not in the sum"
        figures.add(f"{name}.cpu.compiler", max(0.0, min(compiler)), "ms/mail", note=young)
    figures.add(f"{name}.cpu", sum(least.values()), "ms/mail", most=most, note=note)
    return ROUNDS * MAILS[mode]
