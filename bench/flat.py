"""Does a mail cost the same whatever else there is? CPU of one that comes, and of one that goes."""

from pathlib import Path
from typing import NamedTuple

from bench.cpu import Meter
from bench.figures import Figures
from bench.house import KNOWN, House

MAILS = 4000  # of 10 kB, for each figure
WARM_UP = 1000
DOMAINS = 10_000
FLAT = 1.2  # at most so much more
WITHIN_S = 120.0


class Costs(NamedTuple):
    """CPU ms of a mail."""

    taken: float
    handed_over: float


async def costs(house: House) -> Costs:
    """The primary is away before and after; MAILS of those that waited before are gone then."""
    await house.load(count=WARM_UP, connections=100, recipient=KNOWN)
    taken = Meter(house.pids)
    await house.load(count=MAILS, connections=100, recipient=KNOWN)
    taken_s = sum(taken.taken().values())
    await house.primary.up()
    await house.primary.took(1, WITHIN_S)
    handed = Meter(house.pids)
    counts = await house.primary.took(MAILS, WITHIN_S)
    handed_s = sum(handed.taken().values())
    await house.primary.down()
    return Costs(taken_s * 1000 / MAILS, handed_s * 1000 / counts["mails"])


async def more_domains(house: House, folder: Path) -> None:
    """As many as DOMAINS besides the one."""
    file = folder / "domains.csv"
    file.write_text("domain\n" + "".join(f"d{number}.example\n" for number in range(DOMAINS)), "utf-8")
    await house.command("domain", "apply", str(file))


def compare(figures: Figures, name: str, before: Costs, after: Costs) -> None:
    """`after` as a share of `before`."""
    for part, was, is_ in zip(Costs._fields, before, after, strict=True):
        note = f"{was:.3f} and {is_:.3f} ms of CPU a mail"
        figures.add(f"sqlite.flat.{part}.{name}", is_ / was, "of the cost before", most=FLAT, note=note)
