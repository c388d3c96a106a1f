"""The primary comes back: when the first mail is there, how fast the rest follows."""

import time

from bench.cpu import Meter
from bench.figures import Figures
from bench.house import House

FIRST_S = 20.0
MAILS = 6000  # so many are waited for
WITHIN_S = 180.0


async def outage_ends(house: House, figures: Figures, waiting: int) -> None:
    """`waiting` mails wait and the primary is away."""
    mails = min(waiting, MAILS)
    back = time.monotonic()
    await house.primary.up()
    await house.primary.took(1, WITHIN_S)
    meter = Meter(house.pids)
    counts = await house.primary.took(mails, WITHIN_S)
    cpu = sum(meter.taken().values())
    figures.add(f"{house.log}.return.first", counts["first"] - back, "s", most=FIRST_S)
    took_s = counts["last"] - counts["first"]
    busy = counts["cpu_s"] / took_s
    figures.add(
        f"{house.log}.return.drain", (counts["mails"] - 1) / took_s, "mails/s",
        note=f"the first {counts['mails']} of {waiting} mails; the primary, Python too, was busy for "
        f"{busy:.0%} of the time",
    )  # fmt: skip
    figures.add(f"{house.log}.return.drain.cpu", cpu * 1000 / counts["mails"], "ms/mail")
