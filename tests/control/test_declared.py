"""Domains as files declare them: read, written, compared; what is wrong is said with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import Admission, Domain, Enforce, Installation, Language, Overrides
from services.control import declared
from services.control.declared import Change, from_csv, from_toml, plan, to_csv, to_toml, typed
from services.control.domains import SETTINGS, Book, Malformed, Refused, settings

NAMES = [f"d{number}.example" for number in range(4)]
overrides = st.builds(
    Overrides,
    admission=st.sampled_from([None, *Admission]),
    enforce=st.sampled_from([None, *Enforce]),
    language=st.sampled_from([None, *Language]),
    contact=st.sampled_from(
        [None, "owner@elsewhere.example", '"a\\"b"@elsewhere.example', "zoë@elsewhere.example"]
    ),
    max_size=st.sampled_from([None, 65536, 10**9]),
    lifetime_s=st.sampled_from([None, 86400.0, 129600.0, 30 * 86400.0]),
    primary_host=st.sampled_from([None, "mail.office.example:2525", "[192.0.2.1]"]),
    xclient=st.sampled_from([None, True, False]),
)


def book(*domains: Domain) -> Book:
    return Book(
        "i",
        ("mx1.backup.example",),
        Installation("i", 12, len(domains)),
        {each.domain: each for each in domains},
    )


def domain(name: str, **own: object) -> Domain:
    return Domain(name, 1.0, 1.0, overrides=Overrides(**own))  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(NAMES), overrides, min_size=1))
def test_what_is_written_is_read(own: dict[str, Overrides]) -> None:
    """Either format, and applied again nothing changes."""
    domains = [Domain(name, 1.0, 1.0, overrides=each) for name, each in own.items()]
    for text, read in ((to_toml(domains), from_toml), (to_csv(domains), from_csv)):
        wanted = read(text)
        assert {name: settings(given) for name, given in wanted.items()} == own
        planned = plan(book(*domains), wanted, {}, prune=True)
        assert planned == declared.Planned({}, (), (), {}, len(own))


def test_every_setting_is_typed_back() -> None:
    """Whatever a person may set is exported as he would type it."""
    given = {"admission": "fallback", "unverified": "defer", "enforce": "spf", "language": "de",
             "contact": "owner@elsewhere.example", "max_size": "70000", "lifetime_days": "1.5",
             "max_connections": "3", "max_rate": "60", "max_waiting": "10", "max_waiting_size": "1000",
             "primary_host": "mail.office.example:2525", "tls_name": "mail.office.example",
             "xclient": "on", "contact_secret": "whsec_" + "c2VjcmV0" * 4}  # fmt: skip
    assert set(given) == set(SETTINGS)
    assert typed(settings(given)) == given


def test_what_is_to_be_done() -> None:
    """Added, changed (a setting that is not there has its default), removed where that was asked for; what
    mail waits for stays, and is named."""
    there = book(
        domain("a.example", max_size=70000, language=Language.DE), domain("b.example"), domain("c.example")
    )
    wanted = {"a.example": {"max_size": "80000"}, "new.example": {"xclient": "on"}}
    planned = plan(there, wanted, {"c.example": 2}, prune=False)
    assert planned.add == {"new.example": {"xclient": "on"}}
    assert planned.change == (
        Change("a.example", {"language": "de", "max_size": "70000"}, {"language": "", "max_size": "80000"}),
    )
    assert (planned.remove, planned.kept, planned.unchanged) == ((), {}, 0)
    planned = plan(there, wanted, {"c.example": 2}, prune=True)
    assert (planned.remove, planned.kept) == (("b.example",), {"c.example": 2})


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (from_toml, "[domains", "it is no TOML: "),
        (from_toml, "a = 1", "a: there are tables"),
        (from_toml, "domains = 1", "domains: there are tables"),
        (from_toml, "[domains]\nx = 1", "domains.x is no table"),
        (from_toml, '[domains."a b"]', "'a b' is no domain name"),
        (from_toml, '[domains."a.example"]\nmax_size = []', r"\[\] is neither text nor a number"),
        (from_toml, '[domains."a.example"]\nmax_size = "x"', "a.example: max_size must be a number"),
        (from_toml, '[domains."a.example"]\nsize = 1', "a.example: 'size' is no setting of a domain"),
        (from_toml, '[domains."a.example"]\n[domains."A.example."]', "a.example is there twice"),
        (from_csv, "name\na.example\n", "no column `domain`"),
        (from_csv, "", "no column `domain`"),
        (from_csv, "domain,contact\na.example\n", "line 2 has not as many columns"),
        (from_csv, "domain\na.example,b\n", "line 2 has not as many columns"),
        (from_csv, 'domain\n"a.example', "line 1: "),
        (from_csv, "domain,enforce\na.example,never\n", "a.example: enforce must be off"),
    ],
)  # fmt: skip
def test_what_is_wrong(read: object, text: str, sentence: str) -> None:
    assert callable(read)
    with pytest.raises(Malformed, match=sentence):
        read(text)


def test_names_that_cannot_be() -> None:
    """Our own, and a contact within the domain."""
    with pytest.raises(Refused, match="it is ours"):
        plan(book(), {"mx1.backup.example": {}}, {}, prune=False)
    with pytest.raises(Malformed, match="contact must be outside"):
        plan(book(), {"a.example": {"contact": "x@a.example"}}, {}, prune=False)


@given(st.text())
def test_noise_is_said_to_be_wrong(text: str) -> None:
    """No input raises anything else."""
    for read in (from_toml, from_csv):
        try:
            read(text)
        except Malformed:
            continue
