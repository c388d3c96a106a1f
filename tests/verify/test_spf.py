"""SPF evaluation as a function: what it asks for, what it remembers, and what no record can make it do."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.verify import spf_record
from services.verify.spf import FOR_EVER, Answer, Lookup, Missing, Question, Result, check_host


class Known(NamedTuple):
    kind: str
    records: tuple[str | tuple[int, str], ...] = ()
    expires: float = 100.0


NOTHING = Known("nxdomain")


def lookup_in(known: Mapping[Question, Answer]) -> Lookup:
    def lookup(name: str, rtype: str) -> Answer:
        try:
            return known[name, rtype]
        except KeyError:
            raise Missing((name, rtype)) from None

    return lookup


def txt(text: str, expires: float = 100.0) -> Known:
    return Known("ok", (text,), expires)


def test_what_is_missing_is_raised_and_hosts_of_an_mx_all_at_once() -> None:
    """An evaluation asks for what it lacks; the ten hosts of an MX are one round, not ten."""
    known: dict[Question, Answer] = {}
    rounds = []
    world: dict[Question, Answer] = {
        ("sender.example", "TXT"): txt("v=spf1 mx -all"),
        ("sender.example", "MX"): Known("ok", tuple((n, f"mx{n}.sender.example") for n in range(10))),
        **{(f"mx{n}.sender.example", "A"): Known("ok", (f"192.0.2.{n}",)) for n in range(10)},
    }
    while True:
        try:
            checked = check_host("192.0.2.7", "bob", "sender.example", "h.example", lookup_in(known))
            break
        except Missing as missing:
            rounds.append(missing.questions)
            known |= {question: world[question] for question in missing.questions}
    assert checked.result is Result.PASS
    assert [len(questions) for questions in rounds] == [1, 1, 10]


def test_a_result_ends_with_the_first_answer_it_used() -> None:
    """A remembered result is no older than any answer it rests on."""
    known = {
        ("sender.example", "TXT"): txt("v=spf1 include:_spf.sender.example -all", 50.0),
        ("_spf.sender.example", "TXT"): txt("v=spf1 ip4:192.0.2.1 -all", 20.0),
    }
    assert check_host("192.0.2.1", "bob", "sender.example", "h", lookup_in(known)).expires == 20.0


@pytest.mark.parametrize(
    ("record", "personal"),
    [
        ("v=spf1 ip4:192.0.2.1", False),
        ("v=spf1 exists:%{d}.x.example -all", False),
        ("v=spf1 exists:%{l}.x.example -all", True),
        ("v=spf1 exists:%{S}.x.example -all", True),
    ],
)
def test_a_result_is_personal_when_the_local_part_was_looked_at(record: str, personal: bool) -> None:
    """RFC 7208 section 7.2: only %{l} and %{s} depend on the mailbox; other results hold for the domain."""
    known = {("sender.example", "TXT"): txt(record)}
    checked = check_host(
        "192.0.2.9", "bob", "sender.example", "h", lambda name, rtype: known.get((name, rtype), NOTHING)
    )
    assert checked.personal is personal


@pytest.mark.parametrize("client", ["", "unknown", "192.0.2.256", "192.0.2.1 ", "list", "fe80::1%eth0;x"])
def test_a_client_without_an_address_is_none(client: str) -> None:
    """What is no IP address cannot be authorised; it never reaches pyspf, which raises for it."""
    checked = check_host(
        client, "bob", "sender.example", "h", lookup_in({("sender.example", "TXT"): NOTHING})
    )
    assert checked.result is Result.NONE


BAD_DOMAINS = [
    "",
    "localhost",
    "[192.0.2.1]",
    "a..example",
    "x" * 64 + ".example",
    "ü.example",
    "a b.example",
]


@pytest.mark.parametrize("domain", [*BAD_DOMAINS, "-a.example", ".example", "a.example\n"])
def test_a_domain_that_cannot_be_looked_up_is_none(domain: str) -> None:
    """RFC 7208 section 4.3: malformed and single-label domains give none, without a question."""
    assert check_host("192.0.2.1", "bob", domain, "h", lookup_in({})).result is Result.NONE
    assert check_host("192.0.2.1", "bob", domain, "h", lookup_in({})).expires == FOR_EVER


def test_a_local_part_in_utf_8_matches_nothing() -> None:
    """RFC 8616 section 4: an expansion that is no domain name does not match, and asks nothing."""
    known = {("sender.example", "TXT"): txt("v=spf1 exists:%{l}.x.example ?all")}
    checked = check_host("192.0.2.1", "bób", "sender.example", "h", lookup_in(known))
    assert checked.result is Result.NEUTRAL


def test_the_record_of_redirect_counts_its_own_lookups() -> None:
    """RFC 7208 section 4.6.4: the limit is over all records; a redirect followed is one of them."""
    hosts = " ".join(f"a:h{n}.example.org" for n in range(9))
    for last, result in (("-all", Result.FAIL), ("a:h9.example.org -all", Result.PERMERROR)):
        known = {
            ("sender.example", "TXT"): txt(f"v=spf1 {hosts} redirect=r.example.org"),
            ("r.example.org", "TXT"): txt(f"v=spf1 {last}"),
            **{(f"h{n}.example.org", "A"): Known("ok", ("198.51.100.1",)) for n in range(10)},
        }
        assert check_host("192.0.2.1", "bob", "sender.example", "h", lookup_in(known)).result is result


@pytest.mark.parametrize(("names", "result"), [(9, Result.PASS), (10, Result.FAIL)])
def test_of_the_names_of_a_client_the_first_ten_are_looked_up(names: int, result: Result) -> None:
    """RFC 7208 section 4.6.4: further PTR records are ignored, and nothing is asked for them."""
    others = [f"h{n}.example.org" for n in range(names)]
    known = {
        ("sender.example", "TXT"): txt("v=spf1 ptr -all"),
        ("1.2.0.192.in-addr.arpa", "PTR"): Known("ok", (*others, "mail.sender.example")),
        **{(host, "A"): Known("ok", ("192.0.2.1",)) for host in (*others[:10], "mail.sender.example")},
    }
    checked = check_host("192.0.2.1", "bob", "sender.example", "h", lookup_in(known))
    assert checked.result is result


def test_what_is_behind_the_match_is_not_asked() -> None:
    """RFC 7208 section 4.6: macros, %{p} among them, are expanded where their term is reached."""
    known = {("sender.example", "TXT"): txt("v=spf1 ip4:192.0.2.1 a:%{p}.example.org exists:%{p}.x.example")}
    assert check_host("192.0.2.1", "bob", "sender.example", "h", lookup_in(known)).result is Result.PASS


LONG = [
    "v=spf1 a:x." + "a" * 4000 + "!",
    "v=spf1 x=" + "a.b." * 15_000 + "%{d}",
    "v=spf1 " + "a " * 30_000,
    "v=spf1 exists:%{l" + "9" * 5000 + "}.x.example",
    "v=spf1 " + "ip4:198.51.100.1/32 " * 190,
    "v=spf1 " + ("a:x." + "a" * 500 + "! ") * 7,
    "v=spf1 exists:" + "%{ir1-.+,/_=}" * 38 + ".x",
    "v=spf1 " + ("a:" + "a." * 254 + "! ") * 7,
    "v=spf1 " + ("a:x" + "/1" * 254 + " ") * 7,
    "v=spf1 " + ("x=" + "%" * 509 + " ") * 7,
    "v=spf1 " + ("a:" + "-" * 400 + ".a" + "-" * 100 + " ") * 7,
]


@pytest.mark.parametrize("record", LONG, ids=lambda record: record[:20])
def test_no_record_costs_more_than_milliseconds(record: str) -> None:
    """A stranger's record of any size and shape is answered before anybody else notices."""

    def lookup(_: str, rtype: str) -> Answer:
        return txt(record) if rtype == "TXT" else NOTHING

    def cost() -> float:
        spf_record.terms.cache_clear()
        spf_record.mechanism.cache_clear()
        began = time.process_time()
        check_host("192.0.2.1", "bob", "sender.example", "h.example", lookup)
        return time.process_time() - began

    assert min(cost() for _ in range(3)) < 0.1


WORDS = (
    "a mx ptr exists: include: ip4: ip6: all redirect= exp= %{ % } / // 24 1.2.3.4 ::1 - ~ ? + . x.example "
    "l s d1r- p : = \x80 _ i v h c r t 99999 ir."
)
PIECES = st.sampled_from([" ", *WORDS.split(" ")])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PIECES, max_size=14).map("".join),
    st.sampled_from(["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]),
    st.text(max_size=5),
    st.sampled_from(["ok", "nodata", "nxdomain", "timeout", "servfail"]),
)
def test_any_record_gives_a_result(record: str, client: str, local: str, kind: str) -> None:
    """Whatever a record holds and DNS does, the answer is one of the seven results."""
    records: dict[str, tuple[str | tuple[int, str], ...]] = {
        "A": ("192.0.2.1",), "AAAA": ("2001:db8::1",), "MX": ((10, "m.example"), (10, "")),
        "PTR": ("p.example", "q"),
    }  # fmt: skip

    def lookup(_: str, rtype: str) -> Answer:
        if rtype == "TXT":
            return txt(f"v=spf1 {record}")
        return Known(kind, records[rtype] if kind == "ok" else ())

    assert check_host(client, local, "sender.example", "h.example", lookup).result in Result


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=12).map(lambda octets: b"v=spf1" + octets) | st.binary(max_size=12), max_size=3
    ),
    st.text(alphabet="%{}slodiphvcrtSL019r-+,/_=.a:", max_size=20),
)
def test_any_texts_and_any_macros_are_read_or_refused(texts: list[bytes], spec: str) -> None:
    """The reader of records raises Wrong or nothing; a name that it lets through can be expanded."""
    with suppress(spf_record.Wrong):
        if (record := spf_record.select(texts)) is not None:
            spf_record.terms(record)
    with suppress(spf_record.Wrong):
        argument = spf_record.mechanism(f"exists:{spec}").argument
        name = spf_record.expand(argument, lambda letter: f"{letter}1.{letter}2-x")
        assert len(name) <= 253 or "." not in name
