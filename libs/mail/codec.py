"""Records in msgpack, and back. What cannot be read is Undecodable: quarantined, never guessed."""

from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from libs.mail.knowledge import CalloutRecord, PrimaryState, RecipientRecord
from libs.mail.records import (
    Access,
    ContentRef,
    Domain,
    Installation,
    Mail,
    OnlyMail,
    Progress,
    QueueEntry,
    RequestRecord,
    State,
    Trace,
    Verdict,
)

FORMAT = b"1"  # the record header `format`: readable by every version


class Undecodable(ValueError):  # noqa: N818 the word of the failure catalogue
    """The record cannot be read by this version: keep it, count it, step over it."""


_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[object, msgspec.msgpack.Decoder[object]] = {
    type_: msgspec.msgpack.Decoder(type_)
    for type_ in (
        Mail,
        OnlyMail,
        QueueEntry,
        ContentRef,
        Trace,
        Verdict,
        CalloutRecord,
        RecipientRecord,
        PrimaryState,
        Domain,
        Installation,
        Access,
        RequestRecord,
    )
}


def encode(record: Struct) -> bytes:
    """The msgpack form of any record of records.py and knowledge.py."""
    return _encoder.encode(record)


def decode(value: bytes, type_: type[_T]) -> _T:
    """The record of `type_` in `value`. Raises Undecodable."""
    try:
        return _decoders[type_].decode(value)  # type: ignore[return-value]
    except msgspec.MsgspecError as error:
        raise Undecodable(str(error)) from error


def decode_callout(value: bytes) -> CalloutRecord:
    """Raises Undecodable."""
    return decode(value, CalloutRecord)  # type: ignore[arg-type]


def decode_request(value: bytes) -> RequestRecord:
    """Raises Undecodable."""
    return decode(value, RequestRecord)  # type: ignore[arg-type]


def decode_recipient(value: bytes) -> RecipientRecord:
    """Raises Undecodable."""
    return decode(value, RecipientRecord)  # type: ignore[arg-type]


def new_entry(mail: Mail, state: State = State.QUEUED) -> QueueEntry:
    """A fresh `queue` entry, due now; HELD: somebody must look at it first."""
    return QueueEntry(Raw(encode(mail)), Progress(state, since=mail.arrived))


def mail_of(entry: QueueEntry) -> Mail:
    """The mail of an entry. Raises Undecodable."""
    return decode(bytes(entry.mail), Mail)


def queue_headers(ref: ContentRef) -> tuple[tuple[str, bytes], ...]:
    """The headers of a `queue` record (rule 5: readable by every version)."""
    return (("format", FORMAT), ("content", encode(ref)))
