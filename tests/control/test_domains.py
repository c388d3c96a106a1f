"""What may be added and removed, and in which order it is written."""

import pytest

from libs.mail.records import Admission, Domain, Enforce, Installation, Overrides, Unverified
from services.control.domains import (
    Book,
    Malformed,
    Refused,
    Unknown,
    activated,
    add,
    changed,
    check_due,
    healed,
    known,
    named,
    own,
    remove,
    settings,
)

ID = "installation-1"
NOW = 1_800_000_000.0
DAY = 86_400.0


def book(*names: str, count: int | None = None, id: str = ID) -> Book:  # noqa: A002
    domains = {name: Domain(domain=name, added=NOW, active_since=NOW) for name in names}
    record = Installation(id, 12, len(names) if count is None else count)
    return Book(ID, ("mx1.backup.example", "isp.example"), record, domains)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("office.example", "office.example"),
        (" Office.Example. ", "office.example"),
        ("müller.de", "xn--mller-kva.de"),
        ("MÜLLER.DE", "xn--mller-kva.de"),
        ("a.b.office.example", "a.b.office.example"),
    ],
)
def test_a_name_is_its_lower_case_a_label(text: str, name: str) -> None:
    """Whatever way it is typed, one domain has one name."""
    assert named(text) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "office", "localhost", "192.0.2.1", "[192.0.2.1]", "a@office.example", "-a.example", "a b.de",
     "office..example", "a/b.example", "x" * 64 + ".example", "*.office.example", "\x00.example"],
)  # fmt: skip
def test_what_is_no_domain_is_said_so(text: str) -> None:
    """A typing mistake never becomes a relay domain."""
    with pytest.raises(Malformed, match="is no domain name"):
        named(text)


def test_the_count_is_raised_after_an_add() -> None:
    """Between the two writes a reader sees more domains than counted, never fewer (rule 7)."""
    assert add(book("a.example"), "b.example", NOW, active=True) == (
        Domain(domain="b.example", added=NOW, active_since=NOW),
        Installation(ID, 12, 2),
    )


def test_the_count_is_lowered_before_a_remove() -> None:
    """The same, the other way round."""
    assert remove(book("a.example", "b.example"), "a.example", 0) == (
        Installation(ID, 12, 1, era=1),
        "a.example",
    )


def test_a_domain_that_is_added_again_is_of_a_later_era() -> None:
    """What is known of the first one's recipients is told from what is known of the second one's."""
    before = book("a.example", "b.example")
    domains = dict(before.domains)
    for era in (1, 2, 3):
        record, name = remove(before._replace(domains=domains), "a.example", 0)
        assert isinstance(record, Installation)
        assert isinstance(name, str)
        del domains[name]
        before = before._replace(installation=record, domains=domains)
        domain, record = add(before, "a.example", NOW, active=True)
        assert isinstance(domain, Domain)
        assert isinstance(record, Installation)
        domains[domain.domain] = domain
        before = before._replace(installation=record, domains=domains)
        assert domain.era == era
    assert domains["b.example"].era == 0
    first, second = add(before, "c.example", NOW, active=True)  # cut off between both
    assert isinstance(first, Domain)
    assert isinstance(second, Installation)
    halved = before._replace(domains=domains | {"c.example": first})
    healthy = healed(halved)
    assert healthy == second
    removed, _ = remove(halved, "c.example", 0)
    assert isinstance(removed, Installation)
    assert removed.era > first.era


def test_a_new_domain_is_pending_until_its_dns_names_us() -> None:
    """Anybody may type gmail.com: without DNS it is active_since 0."""
    domain, _ = add(book(), "gmail.com", NOW, active=False)
    assert isinstance(domain, Domain)
    assert domain.active_since == 0
    assert activated(domain, NOW + 5).active_since == NOW + 5


def test_being_active_is_kept() -> None:
    """DNS never undoes it, and the first time counts."""
    domain = Domain(domain="a.example", added=NOW, active_since=NOW + 1)
    assert activated(domain, NOW + 99) is domain


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.example", "a.example is a relay domain already"),
        ("mx1.backup.example", "cannot be a relay domain"),
        ("isp.example", "cannot be a relay domain"),
    ],
)
def test_what_cannot_be_added(name: str, sentence: str) -> None:
    """A domain twice, our own host, the operators' domain."""
    with pytest.raises(Refused, match=sentence):
        add(book("a.example"), name, NOW, active=True)


def test_what_cannot_be_removed() -> None:
    """An unknown domain, and one whose mail waits."""
    with pytest.raises(Unknown, match=r"b\.example is no relay domain"):
        remove(book("a.example"), "b.example", 0)
    with pytest.raises(Refused, match=r"a\.example cannot be removed: 1 mail waits for its primary"):
        remove(book("a.example"), "a.example", 1)
    with pytest.raises(Refused, match="20 mails wait"):
        remove(book("a.example"), "a.example", 20)


def test_nothing_is_written_to_a_log_that_is_not_whole() -> None:
    """Missing record, another installation, missing domains: a sentence, and no write (rule 7)."""
    missing = book("a.example")._replace(installation=None)
    for wrong, sentence in (
        (missing, "no installation record"),
        (book("a.example", id="another-one"), "belongs to installation another-one"),
        (book("a.example", count=3), "2 relay domains are missing"),
    ):
        assert not wrong.whole
        with pytest.raises(Refused, match=sentence):
            add(wrong, "b.example", NOW, active=True)
        with pytest.raises(Refused, match=sentence):
            remove(wrong, "a.example", 0)


def test_the_count_heals_upwards_only() -> None:
    """An add that was cut off before its count is finished; a count that is too high is evidence."""
    assert healed(book("a.example", "b.example", count=1)) == Installation(ID, 12, 2)
    assert healed(book("a.example", count=1)) is None
    assert healed(book("a.example", count=2)) is None
    assert healed(book("a.example", count=0, id="another-one")) is None
    assert healed(book("a.example")._replace(installation=None)) is None


def test_known_names_what_is_unknown() -> None:
    """Unknown is its own kind of refusal: the API says 404."""
    assert known(book("a.example"), "a.example").domain == "a.example"
    with pytest.raises(Unknown):
        known(book("a.example"), "b.example")


def test_pending_domains_are_looked_at_each_minute_for_a_day_then_hourly() -> None:
    """And an active one never."""
    pending = Domain(domain="a.example", added=NOW)
    assert check_due(pending, None, NOW + 1, 60)
    assert not check_due(pending, 59, NOW + 100, 60)
    assert check_due(pending, 60, NOW + 100, 60)
    assert not check_due(pending, 60, NOW + DAY, 60)
    assert check_due(pending, 3600, NOW + DAY, 60)
    assert not check_due(activated(pending, NOW), None, NOW + DAY, 60)


def test_settings_are_read_as_typed() -> None:
    """Each setting of a domain has a name, a form, and can be taken back."""
    given = {"admission": "fallback", "unverified": "defer", "max_size": "65536", "lifetime_days": "0.5"}
    given |= {"enforce": "dmarc", "max_rate": "60", "xclient": "on", "tls_name": "Mail.Office.example"}
    given["primary_host"] = "Own.Office.example:2525"
    before = Overrides(contact="kim@office.example", max_connections=3)
    assert settings(given | {"max_connections": "default"}, before) == Overrides(
        lifetime_s=DAY / 2,
        unverified=Unverified.DEFER,
        contact="kim@office.example",
        max_size=65536,
        admission=Admission.FALLBACK,
        enforce=Enforce.DMARC,
        max_rate=60,
        primary_host="own.office.example:2525",
        tls_name="mail.office.example",
        xclient=True,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("admission", "sometimes"),
        ("admission", "Fallback"),
        ("unverified", ""),
        ("enforce", "on"),
        ("enforce", "DMARC"),
        ("max_size", "65535"),
        ("max_size", "-1"),
        ("max_size", "1e9"),
        ("max_size", "\u0663"),
        ("lifetime_days", "31"),
        ("lifetime_days", "0"),
        ("lifetime_days", "nan"),
        ("max_connections", "0"),
        ("max_rate", "0"),
        ("primary_host", "own.office.example:0"),
        ("primary_host", "own.office.example:65536"),
        ("primary_host", "own office.example"),
        ("primary_host", "::1"),
        ("primary_host", "[mail.office.example]"),
        ("tls_name", "*.office.example"),
        ("xclient", "yes"),
        ("colour", "red"),
    ],
)
def test_a_wrong_setting_is_one_sentence(name: str, text: str) -> None:
    """It names the setting and says what would be right."""
    with pytest.raises(Malformed, match=name) as said:
        settings({name: text})
    assert ("must be" in str(said.value)) == (name != "colour")


def test_a_change_keeps_the_rest() -> None:
    """Only what was named changes, and the domain shows what is its own."""
    office = Domain("office.example", NOW, NOW, held=True, overrides=Overrides(max_connections=3))
    found = book("office.example")._replace(domains={"office.example": office})
    [step] = changed(found, "office.example", {"admission": "fallback"})
    assert isinstance(step, Domain)
    assert step.held
    assert step.overrides == Overrides(max_connections=3, admission=Admission.FALLBACK)
    assert own(step) == ["admission", "max_connections"]
    with pytest.raises(Unknown):
        changed(found, "other.example", {"admission": "fallback"})
    with pytest.raises(Malformed, match="nothing to set"):
        changed(found, "office.example", {})
    with pytest.raises(Refused, match="missing in the log"):
        changed(book("office.example", count=2), "office.example", {"admission": "fallback"})
