"""What a replica of `recipients` keeps of each record: a few octets. And which of two records counts.

The first octet says what follows. A status: when it was last confirmed (8 octets), when it began, since when
the primary had contradicted what was known before, its era (4 each), the mailbox where it is spelt otherwise
than its key. What is written for people, the primary's reply, is not kept.
"""

import struct
from functools import lru_cache

from libs.mail.codec import decode_recipient, encode
from libs.mail.knowledge import OPERATOR, PrimaryFacts, RecipientRecord, RecipientStatus, RecipientTry, Status

WITNESS_S = 900.0  # between the two callouts that make an undeliverable recipient of a deliverable one

_DELIVERABLE, _SEEN, _SAID, _TRY, _FACTS = 1, 2, 4, 8, 16  # seen in a delivery; said by the operator
_STATUS_FORM, _TRY_FORM = struct.Struct("<BdIII"), struct.Struct("<BdddI")
_MOST = 2**32 - 1


def pack(key: bytes, record: RecipientRecord) -> bytes:
    """`key`: of the record; the mailbox in normal form is in it."""
    match record:
        case RecipientStatus():
            kind = _DELIVERABLE if record.status is Status.DELIVERABLE else 0
            kind |= {"delivery": _SEEN, OPERATOR: _SAID}.get(record.source, 0)
            began, against = _seconds(record.since), _seconds(record.against)
            head = _STATUS_FORM.pack(kind, record.confirmed, began, against, record.era)
            return head + _spelt(key, record.mailbox)
        case RecipientTry():
            name = key.removeprefix(b"try:")
            spelt = _spelt(name, record.mailbox).decode()
            text = "\0".join((record.last_outcome, record.against_host, record.elsewhere, spelt))
            times = record.last_tried, record.against_since, record.imported
            return _TRY_FORM.pack(_TRY, *times, record.era) + text.encode()
        case PrimaryFacts():
            return bytes((_FACTS,)) + encode(record)


@lru_cache(maxsize=4096)
def unpack(key: bytes, kept: bytes) -> RecipientRecord:
    """The record without what is not kept; `since` and `against` in whole seconds."""
    kind = kept[0]
    if kind == _FACTS:
        return decode_recipient(kept[1:])
    if kind == _TRY:
        _, tried, against, imported, era = _TRY_FORM.unpack_from(kept)
        outcome, host, elsewhere, spelt = kept[_TRY_FORM.size :].decode().split("\0", 3)
        name = key.removeprefix(b"try:").decode()
        return RecipientTry(spelt or name, tried, outcome, against, host, imported, elsewhere, era)
    _, confirmed, since, against, era = _STATUS_FORM.unpack_from(kept)
    return RecipientStatus(
        (kept[_STATUS_FORM.size :] or key).decode(),
        Status.DELIVERABLE if kind & _DELIVERABLE else Status.UNDELIVERABLE,
        float(since),
        confirmed,
        "delivery" if kind & _SEEN else OPERATOR if kind & _SAID else "callout",
        against=float(against),
        era=era,
    )


def is_status(kept: bytes) -> bool:
    return kept[0] < _TRY


def era_of(kept: bytes) -> int:
    if kept[0] == _FACTS:
        return decode_recipient(kept[1:]).era
    *_, era = (_TRY_FORM if kept[0] == _TRY else _STATUS_FORM).unpack_from(kept)
    return int(era)


def counting(key: bytes, old: bytes | None, value: bytes) -> bytes:
    """What is kept of `key` when `value` comes after `old`. Raises Undecodable.

    Of two eras the later one counts. In one, a no does not take the place of a yes unless the record itself
    names two witnesses, the second newer than the yes. So a no that a former owner sent when it knew nothing
    yet, and that comes late, changes nothing.
    """
    record = decode_recipient(value)
    new = pack(key, record)
    if old is not None and (before := era_of(old)) != record.era:
        return new if before < record.era else old
    if old is None or not is_status(old) or not isinstance(record, RecipientStatus):
        return new
    if not old[0] & _DELIVERABLE or record.status is Status.DELIVERABLE:
        return new
    (confirmed,) = struct.unpack_from("<d", old, 1)
    witnessed = record.against and record.confirmed - record.against >= WITNESS_S
    return new if witnessed and record.confirmed >= confirmed else old


def _seconds(time: float) -> int:
    return int(min(max(0.0, time), _MOST))


def _spelt(key: bytes, mailbox: str) -> bytes:
    """ "", where the key says it."""
    spelt = mailbox.encode()
    return b"" if spelt == key else spelt
