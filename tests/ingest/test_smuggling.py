"""Ends of data that only some servers believe: nobody gets a second mail out of one content.

Each end stands in the middle of a content, with a whole transaction behind it in the same write; the stream
is cut at every octet around it, and each part is read by ingest before the next one is sent. A server that
took the end for true would say yes to two mails. The threat table: one reply 554 5.6.11 and close.
"""

import asyncio
from pathlib import Path

import pytest

from fuzz.contents import FALSE_ENDS, SMUGGLED
from fuzz.dotted import meaning
from libs.mail.knowledge import RecipientStatus, Status
from libs.mail.records import Domain
from tests.helpers.client import Client
from tests.ingest.house import House

ANN = "ann@office.example"
BEFORE = b"Subject: first\r\n\r\nhello"
REFUSED = "554 5.6.11 Bare CR or LF in the message"


async def opened(house: House) -> None:
    await house.install(Domain("office.example", 1.0, active_since=2.0))
    await house.put("recipients", "office.example", ANN, RecipientStatus(ANN, Status.DELIVERABLE, 1.0, 1.0))
    await house.start()


async def converse(house: House, source: str, parameters: str, parts: list[bytes]) -> list[str]:
    """What is said to a content that comes in these parts."""
    async with Client(house.port, source=source) as client:
        await client.greet()
        await client.send(
            f"MAIL FROM:<eve@sender.example>{parameters}\r\nRCPT TO:<{ANN}>\r\nDATA\r\n".encode()
        )
        for code in ("250", "250", "354"):
            assert (await client.reply()).startswith(code)
        for part in parts:
            try:
                await client.send(part)
            except ConnectionError:
                break  # it has been refused already
            for _ in range(3):
                await asyncio.sleep(0)  # ingest is in this loop: it looks at its sockets and reads the part
        said = []
        while (line := await client.line()) is not None:
            said.append(line)
        return said


@pytest.mark.parametrize("end", FALSE_ENDS, ids=lambda end: end.hex())
async def test_never_two_mails(tmp_path: Path, end: bytes) -> None:
    """However the stream is cut, with and without BODY=8BITMIME: what is no end ends nothing, and what
    somebody else would take for one is refused with all that follows."""
    stream = BEFORE + end + SMUGGLED + b"QUIT\r\n"
    at = range(len(BEFORE) - 1, len(BEFORE + end) + 3)
    cuts = [[stream[:cut], stream[cut:]] for cut in at]
    cuts.append([stream[: at[0]], *(stream[cut : cut + 1] for cut in at[:-1]), stream[at[-1] :]])
    wanted = meaning(stream)
    if wanted.state == "false":
        replies, content = [REFUSED], None
    else:  # the true end is the smuggler's own: all of it is one mail
        assert stream[wanted.length :] == b"QUIT\r\n"
        replies, content = ["250 2.0.0", "221 2.0.0"], wanted.content
    async with House(tmp_path) as house:
        await opened(house)
        sessions = {
            f"127.1.{number}.{index}": (parameters, parts)
            for number, parameters in enumerate(("", " BODY=8BITMIME"))
            for index, parts in enumerate(cuts)
        }
        said = await asyncio.gather(*(converse(house, source, *how) for source, how in sessions.items()))
        for (source, (parameters, parts)), lines in zip(sessions.items(), said, strict=True):
            assert len(lines) == len(replies), (source, parameters, parts, lines)
            assert all(map(str.startswith, lines, replies)), (source, parameters, parts, lines)
        queued = await house.queued()
        assert {mail.content for mail in queued} == (set() if content is None else {content})
        assert len(queued) == len({mail.mail.client for mail in queued})
        assert len(queued) == (0 if content is None else len(sessions))


def test_the_ends_are_of_both_kinds() -> None:
    """Those that smuggle with one server or another are refused, those with other octets in them are text."""
    kinds = [meaning(BEFORE + end + SMUGGLED).state for end in FALSE_ENDS]
    assert kinds.count("false") > 12
    assert kinds.count("ended") > 6
