"""What happened, as JSON: written, read, and read by a version that does not know all of it."""

import pytest

from libs.mail.codec import Undecodable
from libs.mail.event import Event, EventType, decode_events, encode_event


def test_a_kind_of_a_newer_version() -> None:
    """Events inform: one that nobody here knows hides none of its neighbours in a record."""
    known = Event(EventType.REQUEST, request_id="r1", text="done")
    lines = encode_event(known) + b'\n{"type":"Teleported","id":"a","how":"fast"}\n' + encode_event(known)
    assert [event.type for event in decode_events(lines)] == ["Request", "unknown", "Request"]


def test_what_is_no_event() -> None:
    with pytest.raises(Undecodable):
        decode_events(b"{}")
