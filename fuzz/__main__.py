"""`python -m fuzz --sessions N --seed S`: SMTP sessions of chance against a real ingest over real sockets.

Exit code 1 when something that must hold did not; each session that shows it is printed as a dialogue that
can be saved as a case file. `--session K` plays session K of the seed alone and prints its dialogue.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path
from random import Random

from fuzz.campaign import AT_ONCE, Campaign, source
from fuzz.dialogue import written
from fuzz.grammar import session
from fuzz.house import House
from fuzz.reading import Violation
from fuzz.talk import Talk


async def replay(folder: Path, seed: str, number: int) -> int:
    async with House(folder) as house:
        talk = Talk(house.port, source(number), house.tls)
        why = ""
        try:
            await talk.play(session(Random(f"{seed}/{number}")))
        except Violation as violation:
            why = str(violation)
        mark = await house.mark()
        queued = [mail for mails in house.queued.values() for mail in mails]
    print(written(seed, number, why, talk.said))
    for mail in queued:
        print(f"# queued {mail.id}, {mail.recipients} recipients, SHA-256 {mail.content}")
    print("\n".join(house.complaints()))
    return 1 if why or mark.errors else 0


async def campaign(folder: Path, seed: str, sessions: int, at_once: int) -> int:
    played = Campaign(seed, at_once=at_once)
    print(f"seed {seed}, {sessions} sessions, {at_once} at once", flush=True)
    await played.run(folder, range(sessions))
    for failure in played.failures:
        print(f"\nsession {failure.number}: {failure.why}\n{failure.dialogue}")
    resident = ", ".join(f"{mark.resident / 2**20:.1f} MiB after {done}" for done, mark in played.marks)
    print(
        f"{played.sessions} sessions, {played.mails} mails accepted, {played.seconds:.0f} s, "
        f"{len(played.failures)} failures; memory: {resident}"
    )
    return 1 if played.failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seed", default="", help="any word; without it one of chance is taken and printed")
    parser.add_argument("--session", type=int, help="play this one of the seed alone")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    given = parser.parse_args()
    seed = given.seed or secrets.token_hex(4)
    with tempfile.TemporaryDirectory(prefix="backupmx-fuzz-") as folder:
        if given.session is not None:
            return asyncio.run(replay(Path(folder), seed, given.session))
        return asyncio.run(campaign(Path(folder), seed, given.sessions, given.at_once))


if __name__ == "__main__":
    sys.exit(main())
