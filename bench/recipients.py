"""How long a RCPT takes: of a recipient that is known, and of those that the primary must be asked about."""

from statistics import median

from bench.cpu import confined
from bench.figures import Figures
from bench.house import DOMAIN, KNOWN, House

CACHED_MS = 1.0  # p99
OVERHEAD_MS = {"sqlite": 10.0, "kafka": 15.0}  # over the primary's own round trips
REPLIES_S = (0.0, 0.02, 0.1)  # how long the primary takes for each reply or group of replies
NEW, CACHED, AT_ONCE = 100, 2000, 200
SESSIONS, EVERY_S = 100, 0.5  # 200 questions a second, so that it is the answer that is timed, and no queue
ROUNDS = 3
CONNECTIONS = 2  # at one primary, at most


async def recipients(house: House, figures: Figures) -> None:
    """Over three brokers, where it is Kafka."""
    await house.load(mode="rcpt", count=1, connections=1, recipient=KNOWN)
    for reply_s in REPLIES_S:
        await _new(house, figures, reply_s)
    await _at_once(house, figures)
    await _cached(house, figures)


async def _cached(house: House, figures: Figures) -> None:
    """Last, as brokers that have just started compile themselves for a while. An
    installation gives ingest cores that no broker takes from it: here all brokers share the last one."""
    with confined(house.brokers):
        rounds = [
            await house.load(mode="rcpt", count=CACHED, connections=SESSIONS, every=EVERY_S, recipient=KNOWN)
            for _ in range(ROUNDS)
        ]
    for part, most in (("p50", None), ("p99", CACHED_MS)):
        value = median(each[part] for each in rounds)
        note = f"{SESSIONS} sessions; the median of {ROUNDS} rounds"
        figures.add(f"{house.log}.rcpt_cached.{part}", value, "ms", most=most, note=note)


async def _new(house: House, figures: Figures, reply_s: float) -> None:
    """One after the other, at a primary that takes `reply_s` for each reply."""
    ms = round(reply_s * 1000)
    await house.primary.down()
    await house.primary.up(reply_s)
    await house.load(mode="rcpt", count=5, connections=1, recipient=f"first-{ms}-{{}}@{DOMAIN}")
    before = (await house.primary.counts())["waits"]
    new = await house.load(mode="rcpt", count=NEW, connections=1, recipient=f"new-{ms}-{{}}@{DOMAIN}")
    waits = ((await house.primary.counts())["waits"] - before) / NEW
    primary_ms = waits * reply_s * 1000
    name = f"{house.log}.rcpt_new.{ms}ms"
    for part in ("p50", "p99"):
        figures.add(f"{name}.{part}", new[part], "ms")
    note = f"over {waits:g} replies of {reply_s:g} s each"
    figures.add(f"{name}.overhead", new["p50"] - primary_ms, "ms", most=OVERHEAD_MS[house.log], note=note)


async def _at_once(house: House, figures: Figures) -> None:
    """A session for each of many recipients, all at the same time."""
    await house.primary.down()
    await house.primary.up(REPLIES_S[1])
    many = await house.load(mode="rcpt", count=AT_ONCE, connections=AT_ONCE, recipient=f"many-{{}}@{DOMAIN}")
    connections = (await house.primary.counts())["most"]
    name, note = f"{house.log}.rcpt_new.at_once", f"{AT_ONCE} recipients, replies of {REPLIES_S[1]:g} s"
    figures.add(f"{name}.p50", many["p50"], "ms", note=note)
    figures.add(f"{name}.p99", many["p99"], "ms", note=note)
    figures.add(f"{name}.connections", connections, "at most", most=CONNECTIONS, note=note)
