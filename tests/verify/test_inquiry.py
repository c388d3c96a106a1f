"""What `auth check` is asked, read: anything is an inquiry or a sentence."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verify.inquiry import Inquiry, Line, Malformed, as_sent, inquiry, line

VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["<>", "@", "a@b", "<a@bücher.example>", "::1%x", "1970-01-01", "2026-02-30", "9" * 400, "eA=="]
    )
)
NAMES = st.sampled_from([*Line.__struct_fields__, "other"])


@given(st.dictionaries(NAMES, VALUES).map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_any_line_is_an_inquiry_or_a_sentence(raw: bytes) -> None:
    """Nothing but Malformed is raised."""
    with suppress(Malformed):
        inquiry(line(raw))


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"])).map(b"".join))
def test_what_was_sent_has_no_line_feed_alone(message: bytes) -> None:
    """Every line ends with CR LF, the last one too; what already does is not touched."""
    sent = as_sent(message)
    assert sent.count(b"\n") == sent.count(b"\r\n")
    assert sent.endswith(b"\r\n") or not sent
    assert as_sent(sent) == sent


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("<>", ""),
        ("", ""),
        (" <Bob@Sender.Example> ", "Bob@sender.example"),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ('"b@c"@sender.example', '"b@c"@sender.example'),
        ("bob@sender..example", "bob@sender..example"),
        ("@sender.example", "@sender.example"),
        ("Macro Error@sender.example", "Macro Error@sender.example"),
    ],
)
def test_return_paths_are_in_the_form_of_a_session(typed: str, read: str) -> None:
    """What no session would take is checked as it is: SPF has a word for it."""
    assert inquiry(Line(mail_from=typed)).mail_from == read


@pytest.mark.parametrize(
    "typed",
    [
        "bob",
        "Bob <bob@sender.example>",
        "FROM:<bob@sender.example>",
        "bob@sender.example SIZE=9",
        "b\0@c.example",
    ],
)
def test_what_is_more_than_an_address_is_none(typed: str) -> None:
    """Else SPF would be asked about a domain that nobody has named."""
    with pytest.raises(Malformed, match="mail_from must be an address"):
        inquiry(Line(mail_from=typed))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (" 192.0.2.1 ", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("::FFFF:192.0.2.1", "::ffff:c000:201"),
        ("", None),
    ],
)
def test_addresses_as_people_write_them(typed: str, read: str | None) -> None:
    """Also as an address literal, as in EHLO."""
    assert inquiry(Line(ip=typed, relay=typed)) == Inquiry(ip=read, relay=read)


def test_what_is_null_or_empty_is_not_told() -> None:
    """As programs write it who have nothing to tell; but an empty return path is one, and so is an empty
    message."""
    names = [name for name in Line.__struct_fields__ if name not in ("mail_from", "message", "message_b64")]
    nothing = json.dumps(dict.fromkeys(Line.__struct_fields__)).encode()
    empty = json.dumps(dict.fromkeys(names, "") | {"trusted": []}).encode()
    assert inquiry(line(nothing)) == inquiry(line(empty)) == inquiry(line(b"\xef\xbb\xbf{}")) == Inquiry()
    assert inquiry(Line(mail_from="")) == Inquiry(mail_from="")
    assert inquiry(Line(message="")) == inquiry(Line(message_b64="")) == Inquiry(message=b"")
    for said in (Line(message="a", message_b64=""), Line(message="", message_b64="YQ==")):
        assert inquiry(said) == Inquiry(message=b"a\r\n")


@pytest.mark.parametrize(
    "at", ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00+01:00", "2026-11-24 10:00", 1795514400.0]
)
def test_times(at: str | float) -> None:
    """With a zone, or in UTC; or in seconds."""
    assert inquiry(Line(at=at)).at == 1795514400.0
