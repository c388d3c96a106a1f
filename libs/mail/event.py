"""What happened, in events: one JSON object each, on standard output and in records of the topic `events`.

A record holds the events of one domain that came at once, a line each; most hold one.

Events inform, nothing is decided by them. Times are wall seconds UTC, sizes octets.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from libs.mail.codec import Undecodable


class EventType(StrEnum):
    RECEPTION = "Reception"
    REJECTION = "Rejection"
    DELIVERY = "Delivery"
    TRANSIENT_FAILURE = "TransientFailure"
    BOUNCE = "Bounce"
    EXPIRATION = "Expiration"
    PARKED = "Parked"
    HELD = "Held"
    RELEASED = "Released"
    RETRIED = "Retried"
    REDELIVERED = "Redelivered"
    DELETED = "Deleted"
    DROPPED = "Dropped"
    DELAYED = "Delayed"  # the sender is told that a mail waits
    RELAYED = "Relayed"  # the sender is told that a mail was handed over
    CONTENT_LOST = "ContentLost"
    QUARANTINED = "Quarantined"
    PRIMARY = "Primary"  # a primary's health changed
    RECIPIENT = "Recipient"  # what is known of a recipient changed
    NOTICE = "Notice"  # a notice to a domain's contact was written
    REQUEST = "Request"  # a request was applied (request_id, counts)
    DOMAIN = "Domain"  # a relay domain was added, became active, was removed
    FINDING = "Finding"  # an examination found something that was not so before, or finds it no more
    ACCESS = "Access"  # the operator blocked or allowed somebody, or no more
    TICK = "Tick"
    UNKNOWN = "unknown"  # of a newer version

    @classmethod
    def _missing_(cls, value: object) -> "EventType":
        return cls.UNKNOWN


class Response(Struct, frozen=True, omit_defaults=True):
    """A reply of a mail server (ours or theirs); `command`: what it answers."""

    code: int = 0
    enhanced_code: str = ""
    content: str = ""
    command: str = ""


class Event(Struct, frozen=True, omit_defaults=True):
    """One thing that happened. `event_time`, `service` and `host` (who says it) are filled in when it is
    emitted; `created_time`: arrival of the mail; `counts`: mails by what a request did to them: `changed`,
    `already` (they are so), `unchanged` (not what the request is for), `busy` (ask again)."""

    type: EventType
    event_time: float = 0.0
    service: str = ""
    host: str = ""
    id: str = ""
    domain: str = ""
    sender: str = ""
    recipient: str = ""
    size: int = 0
    response: Response | None = None
    peer_address: str = ""
    source_address: str = ""
    tls: str = ""
    num_attempts: int = 0
    created_time: float = 0.0
    request_id: str = ""
    text: str = ""
    counts: dict[str, int] = {}


def encode_event(event: Event) -> bytes:
    """One JSON object without line breaks: the log line, and a line of an `events` record."""
    return msgspec.json.encode(event)


def decode_event(value: bytes) -> Event:
    """Raises Undecodable."""
    try:
        return msgspec.json.decode(value, type=Event)
    except msgspec.MsgspecError as error:
        raise Undecodable(str(error)) from error


def decode_events(value: bytes) -> list[Event]:
    """The events of a record. Raises Undecodable."""
    return [decode_event(line) for line in value.split(b"\n")]
