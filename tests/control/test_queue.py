"""Rows of the queue, and the pages that a person turns."""

import pytest
from msgspec.structs import replace

from libs.log.contract import Record
from libs.mail.codec import Undecodable, encode, new_entry, queue_headers
from libs.mail.knowledge import Health, PrimaryState
from libs.mail.records import Basis, Cause, ContentRef, Kind, Mail, Progress, Recipient, State
from services.control.queue import Place, place, row, unreadable, vault_row

NOW = 1_800_000_000.0
MAIL = Mail(
    id="aaaabbbbccccddddeeeeffff",
    domain="office.example",
    next_hop="office.example",
    kind=Kind.RELAYED,
    reverse_path="eve@sender.example",
    recipients=(
        Recipient("ann@office.example", Basis.DELIVERABLE),
        Recipient("bob@office.example", Basis.SUSPICION),
    ),
    prepend=b"Received: x\r\n",
    arrived=NOW + 0.5,
    may_notify=True,
)


def record(mail: Mail = MAIL, progress: Progress | None = None) -> Record:
    entry = new_entry(mail)
    if progress is not None:
        entry = replace(entry, progress=progress)
    headers = queue_headers(ContentRef(3, (7, 8), 12345))
    return Record("queue", 3, 42, mail.id.encode(), encode(entry), headers, NOW)


def test_a_row_has_postqueues_field_names() -> None:
    """Scripts that read `postqueue -j` read ours."""
    assert row(record(), None) == {
        "queue_name": "queued",
        "queue_id": "aaaabbbbccccddddeeeeffff",
        "arrival_time": 1_800_000_000,
        "message_size": 12345,
        "forced_expire": False,
        "sender": "eve@sender.example",
        "recipients": [
            {"address": "ann@office.example", "delay_reason": ""},
            {"address": "bob@office.example", "delay_reason": ""},
        ],
        "domain": "office.example",
        "kind": "relayed",
        "attempts": 0,
        "next_attempt": 0.0,
    }


def test_recipients_that_are_done_are_gone() -> None:
    """A row shows what still needs something, and the primary's last words as the reason."""
    progress = Progress(State.DEFERRED, attempts=2, done=(0,), last_reply="452 4.2.2 full")
    assert row(record(progress=progress), None)["recipients"] == [
        {"address": "bob@office.example", "delay_reason": "452 4.2.2 full"}
    ]


@pytest.mark.parametrize("health", [Health.DOWN, Health.DEFERRING, Health.REFUSING])
def test_mail_of_an_absent_primary_waits(health: Health) -> None:
    """`waiting` is never written: it is queued or deferred mail whose primary is not up."""
    primary = PrimaryState("office.example", health, NOW)
    shown = row(record(), primary)
    assert shown["queue_name"] == "waiting"
    assert shown["recipients"][0]["delay_reason"] == f"the primary is {health.value}"
    assert row(record(progress=Progress(State.DEFERRED)), primary)["queue_name"] == "waiting"
    assert row(record(progress=Progress(State.HELD)), primary)["queue_name"] == "held"


def test_mail_of_a_primary_that_is_up_does_not_wait() -> None:
    """Its state is the written one."""
    primary = PrimaryState("office.example", Health.UP, NOW, last_reply="250 ok")
    assert row(record(), primary)["queue_name"] == "queued"
    assert row(record(), primary)["recipients"][0]["delay_reason"] == ""


def test_an_unreadable_record_is_no_row() -> None:
    """It is for the caller to count."""
    with pytest.raises(Undecodable):
        row(replace(record(), value=b"\xc1"), None)
    with pytest.raises(Undecodable):
        place(replace(record(), value=b"\xc1"))


def test_the_index_keeps_places_only() -> None:
    """A record becomes partition, offset, domain and arrival; a tombstone nothing."""
    assert place(record()) == Place(3, 42, "office.example", NOW + 0.5)
    assert place(replace(record(), value=None)) is None


def test_a_parked_mail_in_the_vault() -> None:
    """Why, since when, and when it ends by itself."""
    parked = Progress(State.PARKED, failed=(0, 1), since=NOW, last_reply="550 no", cause=Cause.EXPIRED)
    held = record(progress=parked)
    at = place(held)
    assert at is not None
    assert at.in_vault
    shown = vault_row(held, at, 7 * 86400.0)
    assert (shown["queue_name"], shown["cause"], shown["since"]) == ("parked", "expired", NOW)
    assert shown["until"] == NOW + 7 * 86400
    lost = record(progress=Progress(State.CONTENT_LOST, since=NOW))
    shown = vault_row(lost, Place(3, 42, "office.example", NOW, State.CONTENT_LOST), 7 * 86400.0)
    assert (shown["cause"], shown["until"]) == ("content-lost", 0.0)
    for state in (State.QUEUED, State.DEFERRED, State.HELD):
        assert not Place(0, 1, "a.example", 1.0, state).in_vault


def test_what_a_newer_version_wrote() -> None:
    """Its mail is read where its state cannot be; where nothing can be read, its place is what is known."""
    old = encode(replace(new_entry(MAIL), progress=Progress()))
    newer = old.removesuffix(b"\x80") + b"\x81\xa5state\xa5cloud"
    odd = replace(record(), value=newer)
    with pytest.raises(Undecodable):
        place(odd)
    at = unreadable(odd)
    assert at == Place(3, 42, "office.example", NOW + 0.5, None)
    shown = vault_row(odd, at, 1.0)
    assert (shown["queue_name"], shown["domain"]) == ("unreadable", "office.example")
    assert shown["message_size"] == 12345
    assert shown["cause"].startswith("queue 3 42: ")
    noise = replace(record(), value=b"\xc1")
    assert unreadable(noise) == Place(3, 42, "", NOW, None)
    assert vault_row(noise, unreadable(noise), 1.0)["until"] == 0.0
