"""Sessions that say nothing: what each costs in memory."""

import asyncio

from bench.cpu import resident
from bench.figures import Figures
from bench.house import House
from bench.load import Session

SESSIONS = 1000
MOST_KB = 20.0


async def idle(house: House, figures: Figures) -> None:
    """Resident memory that SESSIONS more sessions take, each after its EHLO."""
    pid = house.pids[house.running.names[0]]
    before = resident(pid)
    sessions = [await Session.open(house.running.smtp_port) for _ in range(SESSIONS)]
    grown = resident(pid) - before
    await asyncio.gather(*(session.close() for session in sessions))
    name = f"{house.log}.idle.session"
    figures.add(name, grown / SESSIONS / 1000, "kB", most=MOST_KB, note=f"{SESSIONS} at a time")
