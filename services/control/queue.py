"""The queue as a person sees it: one row a mail, with postqueue -j's field names where they exist."""

import re
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from libs.log.contract import Record
from libs.mail.codec import Undecodable, decode, mail_of
from libs.mail.knowledge import Health, PrimaryState
from libs.mail.records import Basis, ContentRef, Kind, Mail, OnlyMail, Progress, QueueEntry, State
from services.control.domains import Malformed

Row = dict[str, Any]

_ID = re.compile(r"[a-z0-9]{1,64}")


class _Recipient(Struct, frozen=True):
    basis: Basis


class _Mail(Struct, frozen=True):
    """The fields of Mail that a place needs, and all whose values a newer version may have more of."""

    domain: str
    arrived: float
    kind: Kind
    recipients: tuple[_Recipient, ...]


class _Entry(Struct, frozen=True):
    mail: _Mail
    progress: Progress


_decoder = msgspec.msgpack.Decoder(_Entry)


class Place(NamedTuple):
    """Where the newest `queue` record of a mail is, and what is needed to find and order it. `state`: None
    where no version here can read it; then `domain` may be "", and `arrived` is when the record was
    written. `ours`: of our own making."""

    partition: int
    offset: int
    domain: str
    arrived: float
    state: State | None = State.QUEUED
    parked: float = 0.0
    ours: bool = False

    @property
    def in_vault(self) -> bool:
        """Does a person decide what becomes of it?"""
        return self.state in (State.PARKED, State.CONTENT_LOST, None)


class Cursor(NamedTuple):
    """The last row of a page: the next one begins after it."""

    arrived: float
    id: str


def mail_id(text: str) -> str:
    """`text`, which could be the id of a mail. Raises Malformed."""
    if not _ID.fullmatch(text):
        raise Malformed(f"{text!r} is no id of a mail")
    return text


def place(record: Record) -> Place | None:
    """The index entry of a `queue` record. Raises Undecodable."""
    if record.value is None:
        return None
    try:
        seen = _decoder.decode(record.value)
    except msgspec.MsgspecError as error:
        raise Undecodable(str(error)) from error
    mail, progress = seen.mail, seen.progress
    parked = progress.since if progress.state is State.PARKED else 0.0
    at = record.partition, record.offset
    return Place(*at, mail.domain, mail.arrived, progress.state, parked, mail.kind.ours)


def unreadable(record: Record) -> Place:
    """The index entry of a record that cannot be decoded. Its mail may be readable all the same: a newer
    version wrote another state."""
    try:
        mail = decode(bytes(decode(record.value or b"", OnlyMail).mail), Mail)
    except Undecodable:
        return Place(record.partition, record.offset, "", record.time, None)
    at = record.partition, record.offset
    return Place(*at, mail.domain, mail.arrived, None, ours=mail.kind.ours)


def vault_row(record: Record, place: Place, parked_s: float) -> Row:
    """One mail of the vault. `since`: when it came there; `until`: when it ends by itself (0: never);
    `cause`: why. What cannot be read has the fields that do not need it, and its place on the log."""
    header = record.header("content")
    try:
        shown = row(record, None)
        progress = decode(record.value or b"", QueueEntry).progress
    except Undecodable as error:
        size = 0
        with suppress(Undecodable):
            size = 0 if header is None else decode(header, ContentRef).size
        return {
            "queue_name": "unreadable",
            "queue_id": record.key.decode("utf-8", "replace"),
            "arrival_time": int(place.arrived),
            "message_size": size,
            "sender": "",
            "recipients": [],
            "domain": place.domain,
            "since": record.time,
            "until": 0.0,
            "cause": f"{record.topic} {record.partition} {record.offset}: {error}",
        }
    until = progress.since + parked_s if progress.state is State.PARKED else 0.0
    cause = progress.cause.value if progress.state is State.PARKED else progress.state.value
    return shown | {"since": progress.since, "until": until, "cause": cause}


def row(record: Record, primary: PrimaryState | None) -> Row:
    """One mail. `recipients` are those that need something still. Raises Undecodable.

    queue_name is the state of docs/states.md: queued, waiting (its primary cannot be reached), deferred,
    held, parked, content-lost.
    """
    if record.value is None:
        raise Undecodable("a tombstone is no mail")
    entry = decode(record.value, QueueEntry)
    mail, progress = mail_of(entry), entry.progress
    header = record.header("content")
    ref = None if header is None else decode(header, ContentRef)
    reason = progress.last_reply or _reason(primary)
    return {
        "queue_name": state(progress.state, primary),
        "queue_id": mail.id,
        "arrival_time": int(mail.arrived),
        "message_size": 0 if ref is None else ref.size,
        "forced_expire": False,
        "sender": mail.reverse_path,
        "recipients": [
            {"address": recipient.mailbox, "delay_reason": reason}
            for number, recipient in enumerate(mail.recipients)
            if number not in progress.done
        ],
        "domain": mail.domain,
        "kind": mail.kind.value,
        "attempts": progress.attempts,
        "next_attempt": progress.next_attempt,
    }


def state(written: State, primary: PrimaryState | None) -> str:
    """The state of a mail whose record says `written`: waiting while its primary is not up."""
    away = primary is not None and primary.health is not Health.UP
    return "waiting" if away and written in (State.QUEUED, State.DEFERRED) else written.value


def _reason(primary: PrimaryState | None) -> str:
    if primary is None or primary.health is Health.UP:
        return ""
    return primary.last_reply or f"the primary is {primary.health.value}"
