"""A content that was here before: held at the third return, and not without end."""

import time
from pathlib import Path

import pytest

from libs.mail.codec import decode
from libs.mail.event import EventType
from libs.mail.headers import returned
from libs.mail.records import QueueEntry, State
from services.ingest.holds import DOMAIN_HOLDS
from tests.helpers.patience import until
from tests.ingest.house import HOST, House
from tests.ingest.test_service import ANN, opened

OURS = f"Received: from a ([192.0.2.1]) by {HOST} with ESMTP\r\n\tid x for <{ANN}>; Tue, 1 Jan 2030\r\n"
THEIRS = f"Received: from {HOST} ([192.0.2.2]) by mail.office.example with ESMTP id y; Tue, 1 Jan 2030\r\n"


@pytest.mark.parametrize(
    ("field", "counts"),
    [
        (OURS, 1),
        (OURS.replace("Received", "RECEIVED").replace(HOST, HOST.upper()), 1),
        (OURS.replace("Received", "received"), 1),
        (f"Received: from a\r\n\tby {HOST};\r\n Tue\r\n", 1),
        (OURS.replace(ANN, ANN.upper()), 1),
        (OURS.replace(ANN, "bob@office.example"), 0),
        (OURS.replace(f" for <{ANN}>", ""), 1),
        (OURS.replace(HOST, "mx2.backup.example"), 1),
        (OURS.replace(HOST, f"{HOST}.evil.example"), 0),
        (THEIRS, 0),
        (f"Received: from a (helo x by {HOST} (really)) by mail.office.example; Tue\r\n", 0),
        (f"X-Received: by {HOST}; Tue\r\n", 0),
        (f"Subject: Received by {HOST}\r\n", 0),
    ],
)
def test_a_return(field: str, counts: int) -> None:
    """It counts when the `by` clause is ours, and `for`, where it is there, names this recipient."""
    head = f"A: b\r\n{field}{THEIRS}".encode()
    assert returned(head, (HOST, "mx2.backup.example"), (ANN,)) == counts


@pytest.mark.parametrize(
    "value",
    [
        "for <a " * 18_000,
        "by " * 40_000,
        "(" * 120_000,
        "(a" * 60_000,
        "()" * 60_000,
        "a:\r\n" * 30_000,
        " " * 120_000,
    ],
    ids=["for", "by", "open", "open a", "comments", "fields", "blanks"],
)
def test_a_hostile_header_costs_its_length(value: str) -> None:
    """128 kB of whatever takes no time that anybody would notice."""
    head = f"Received: by {HOST} {value}\r\n".encode()
    began = time.thread_time()
    returned(head, (HOST,), (ANN,))
    assert time.thread_time() - began < 5


async def test_the_third_return_is_held(tmp_path: Path) -> None:
    """Twice is a detour; three times is a loop: the mail is taken and held, and the operator is told."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            for times in (2, 3):
                content = ((OURS + THEIRS) * times + "Subject: round\r\n\r\nand round\r\n").encode()
                assert (await client.mail(ANN, content=content)).startswith("250 2.0.0")
        entries = [decode(record.value or b"", QueueEntry) for record in await house.records("queue")]
        assert [entry.progress.state for entry in entries] == [State.QUEUED, State.HELD]
        assert house.metrics.loops_held._value.get() == 1
        await until(lambda: len(house.events) == 3)
        assert sorted(event.type for event in house.events) == [
            EventType.HELD, EventType.RECEPTION, EventType.RECEPTION
        ]  # fmt: skip


async def test_loops_do_not_fill_the_log(tmp_path: Path) -> None:
    """More loops of a domain within an hour are 451: anybody can write such fields, and nobody delivers what
    is held. Other mail of the domain goes on."""
    async with House(tmp_path) as house:
        await opened(house)
        content = (OURS * 3 + "\r\nround\r\n").encode()
        async with house.client() as client:
            await client.greet()
            for _ in range(DOMAIN_HOLDS):
                assert (await client.mail(ANN, content=content)).startswith("250 2.0.0")
            assert (await client.mail(ANN, content=content)).startswith("451 4.4.6")
            assert (await client.mail(ANN)).startswith("250 2.0.0")
