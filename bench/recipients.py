"""How long a RCPT takes: of a recipient that is known, and of one that the primary must be asked about."""

from bench.figures import Figures
from bench.house import DOMAIN, KNOWN, House

OVERHEAD_MS = 20.0
REPLY_S = 0.02  # how long the primary takes for each reply or group of replies
NEW, CACHED = 100, 1000


async def recipients(house: House, figures: Figures) -> None:
    """The primary is up; it is up again, and without delay, afterwards. KNOWN is known then."""
    await house.load(mode="rcpt", count=1, connections=1, recipient=KNOWN)
    cached = await house.load(mode="rcpt", count=CACHED, connections=1, recipient=KNOWN)
    for part in ("p50", "p99"):
        figures.add(f"{house.log}.rcpt.cached.{part}", cached[part], "ms")

    await house.primary.down()
    await house.primary.up(REPLY_S)
    await house.load(mode="rcpt", count=5, connections=1, recipient=f"first-{{}}@{DOMAIN}")
    before = (await house.primary.counts())["waits"]
    new = await house.load(mode="rcpt", count=NEW, connections=1, recipient=f"new-{{}}@{DOMAIN}")
    waits = ((await house.primary.counts())["waits"] - before) / NEW
    primary_ms = waits * REPLY_S * 1000
    for part in ("p50", "p99"):
        figures.add(f"{house.log}.rcpt.new.{part}", new[part], "ms")
    figures.add(f"{house.log}.rcpt.new.primary", primary_ms, "ms", note=f"{waits:g} replies of {REPLY_S:g} s")
    figures.add(f"{house.log}.rcpt.new.overhead", new["p50"] - primary_ms, "ms", most=OVERHEAD_MS)
    await house.primary.down()
    await house.primary.up()
