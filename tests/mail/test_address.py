"""The address parser: RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531, and the threat table."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.address import Bad, BadAddress, Mailbox, domain_name, mailbox, path, split

ATEXT = "abcxyzABCXYZ0189!#$%&'*+/=?^_`{|}~-"
atoms = st.text(ATEXT, min_size=1, max_size=8)
dot_strings = st.lists(atoms, min_size=1, max_size=4).map(".".join)
labels = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9\-]{0,8}[a-z0-9])?", re.ASCII), fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)


def bad(raw: bytes, *, smtputf8: bool = False) -> Bad:
    with pytest.raises(BadAddress) as caught:
        path(raw, smtputf8=smtputf8)
    return caught.value.bad


@given(dot_strings, domains)
def test_a_valid_path_is_kept_as_sent(local: str, domain: str) -> None:
    """RFC 5321 4.1.2: a dot-string stays as it is, and its text parses to the same mailbox again."""
    got = path(f"<{local}@{domain.upper()}>".encode(), smtputf8=False)
    assert got == Mailbox(local, domain)
    assert mailbox(str(got)) == got


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20), domains)
def test_any_printable_local_part_can_be_quoted(inner: str, domain: str) -> None:
    """RFC 5321 4.1.2: a quoted string holds any printable ASCII; its shortest form means the same mailbox."""
    quoted = '"' + inner.replace("\\", "\\\\").replace('"', '\\"') + '"'
    got = path(f"<{quoted}@{domain}>".encode(), smtputf8=False)
    assert got is not None
    assert len(got.local) <= len(quoted)
    assert path(f"<{got}>".encode(), smtputf8=False) == got
    spelled_out = '"' + "".join("\\" + c for c in inner) + '"'
    assert path(f"<{spelled_out}@{domain}>".encode(), smtputf8=False) == got


@given(st.binary(max_size=80), st.booleans())
def test_any_octets_give_a_clean_mailbox_or_bad_address(raw: bytes, smtputf8: bool) -> None:
    """No octets crash the parser, and what it lets through has no control character and no line break."""
    for octets in (raw, b"<" + raw + b">", b"<" + raw + b"@office.example>", b"<ann@" + raw + b">"):
        try:
            got = path(octets, smtputf8=smtputf8)
        except BadAddress:
            continue
        if got is not None:
            assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", str(got))
            assert got.domain.isascii()
            assert smtputf8 or str(got).isascii()
            assert path(f"<{got}>".encode(), smtputf8=True) == got


@given(st.text(max_size=60))
def test_any_text_gives_a_mailbox_or_bad_address(text: str) -> None:
    """Text from a person or an API never crashes the parser."""
    for function in (mailbox, domain_name):
        try:
            function(text)
        except BadAddress:
            continue


def test_the_null_path_and_the_bare_postmaster() -> None:
    """RFC 5321 4.1.1.2 and 4.1.1.3: `<>` is the null reverse-path, `<postmaster>` needs no domain."""
    assert path(b"<>", smtputf8=False) is None
    assert path(b"<PostMaster>", smtputf8=False) == Mailbox("PostMaster", "")
    assert str(Mailbox("PostMaster", "")) == "PostMaster"
    assert Mailbox("PostMaster", "").key == "postmaster"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"<u%evil.example@office.example>", "u%evil.example@office.example"),
        (b"<evil.example!u@office.example>", "evil.example!u@office.example"),
        (b'<"u@evil.example"@office.example>', '"u@evil.example"@office.example'),
        (b'<"ann"@office.example>', "ann@office.example"),
        (b'<"a\\nn"@office.example>', "ann@office.example"),
        (b'<""@office.example>', '""@office.example'),
        (b"<ann@office.example.>", "ann@office.example"),
        (b"<ann@XN--MLLER-KVA.DE>", "ann@xn--mller-kva.de"),
        (b"<ann@[192.0.2.1]>", "ann@[192.0.2.1]"),
        (b"<ann@[ipv6:2001:DB8:0:0::1]>", "ann@[IPv6:2001:db8::1]"),
    ],
)
def test_spellings(raw: bytes, wanted: str) -> None:
    """Every spelling of one mailbox gives one text; a local part is opaque and never rerouted."""
    got = path(raw, smtputf8=False)
    assert str(got) == wanted


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<",
        b">",
        b"<<>>",
        b"< >",
        b"ann@office.example",
        b"<ann@office.example",
        b"<ann>",
        b"<@office.example>",
        b"<ann@>",
        b"<ann@@office.example>",
        b"<ann@office..example>",
        b"<ann@.office.example>",
        b"<ann@office.example..>",
        b"<.ann@office.example>",
        b"<ann.@office.example>",
        b"<a..n@office.example>",
        b"<an n@office.example>",
        b"<ann@office.example >",
        b"<ann(comment)@office.example>",
        b"<ann@office.example(comment)>",
        b"<=?utf-8?q?a=0d=0aDATA?= @office.example>",
        b"<a\rn@office.example>",
        b"<a\nn@office.example>",
        b"<a\x00n@office.example>",
        b'<"a\rn"@office.example>',
        b'<"a\\\nn"@office.example>',
        b'<"a\x00n"@office.example>',
        b'<"ann@office.example>',
        b'<"a"n@office.example>',
        b"<ann@office_.example>",
        b"<ann@-office.example>",
        b"<ann@office-.example>",
        b"<ann@" + b"a" * 64 + b".example>",
        b"<ann@[192.0.2.256]>",
        b"<ann@[2001:db8::1]>",
        b"<ann@[IPv6:192.0.2.1]>",
        b"<ann@[x400:1]>",
        b"<ann@[192.0.2.1>",
        b"<ann\xff@office.example>",
        b"<\xed\xa0\x80@office.example>",
    ],
)
def test_what_is_no_path(raw: bytes) -> None:
    """Encoded words, CR, LF, NUL, surrogates, comments, missing angle brackets: a syntax error, always."""
    assert bad(raw) is Bad.SYNTAX
    assert bad(raw, smtputf8=True) is Bad.SYNTAX


def test_an_encoded_word_is_refused() -> None:
    """RFC 2047 5: no encoded word belongs in an address; `=` and `?` alone are plain atext."""
    for raw in (b"<=?utf-8?q?a=0d=0aDATA?=@office.example>", b'<"=?utf-8?B?DQo=?="@office.example>'):
        assert bad(raw) is Bad.SYNTAX
    assert path(b"<prvs=?a?=b@office.example>", smtputf8=False)


def test_source_routes_are_told_apart() -> None:
    """RFC 5321 appendix C: a source route is an error of its own, not followed and not ignored."""
    assert bad(b"<@a.example:u@office.example>") is Bad.SOURCE_ROUTE
    assert bad(b"<@a.example,@b.example:u@office.example>") is Bad.SOURCE_ROUTE


def test_utf8_needs_smtputf8() -> None:
    """RFC 6531 3.3: UTF-8 in a path is an error of its own without SMTPUTF8, and kept with it."""
    raw = "<jürgen@office.example>".encode()
    assert bad(raw) is Bad.UTF8
    assert str(path(raw, smtputf8=True)) == "jürgen@office.example"
    assert bad("<ann@müller.de>".encode()) is Bad.UTF8
    assert str(path("<ann@MÜLLER.de>".encode(), smtputf8=True)) == "ann@xn--mller-kva.de"
    assert str(path('<"j ü"@office.example>'.encode(), smtputf8=True)) == '"j ü"@office.example'
    assert bad("<a\u0085b@office.example>".encode(), smtputf8=True) is Bad.SYNTAX


def test_lengths() -> None:
    """RFC 5321 4.5.3.1: 64 octets of local part, 255 of domain, 254 of mailbox; one more is too long."""
    label = "a" * 61
    assert path(b"<" + b"l" * 64 + b"@office.example>", smtputf8=False)
    assert bad(b"<" + b"l" * 65 + b"@office.example>") is Bad.TOO_LONG
    assert bad(("<" + "ü" * 33 + "@office.example>").encode(), smtputf8=True) is Bad.TOO_LONG
    domain = ".".join([label] * 4)
    assert path(f"<{'l' * 6}@{domain}>".encode(), smtputf8=False)
    assert bad(f"<{'l' * 7}@{domain}>".encode()) is Bad.TOO_LONG
    assert domain_name(f"{domain}.bcdefgh") == f"{domain}.bcdefgh"
    with pytest.raises(BadAddress):
        domain_name(f"{domain}.bcdefghi")


def test_the_key_folds_ascii_case_only() -> None:
    """Recipients are remembered in lower case (decision 0004); letters outside ASCII stay as they are."""
    assert mailbox("Ann@OFFICE.example").key == "ann@office.example"
    assert mailbox("ÄRA@office.example").key == "Ära@office.example"


@pytest.mark.parametrize(
    "text", ["", ".", "office..example", "a b", "*.example", "x" * 64, "[192.0.2.1]", "ü" * 63]
)
def test_what_is_no_domain(text: str) -> None:
    """A name that DNS cannot hold is refused with BadAddress."""
    with pytest.raises(BadAddress):
        domain_name(text)


def test_split_respects_quotes() -> None:
    """RFC 5321 4.1.2: the path ends at the first `>` outside a quoted string; a space must follow."""
    assert split(b'<"a> b"@office.example> SIZE=1') == (b'<"a> b"@office.example>', b"SIZE=1")
    assert split(b"<ann@office.example>") == (b"<ann@office.example>", b"")
    for raw in (
        b"ann@office.example",
        b"<ann@office.example>SIZE=1",
        b'<"ann@office.example>',
        b" <a@b>",
        b"",
    ):
        with pytest.raises(BadAddress):
            split(raw)
