"""The owner's hint: exact, complete, with our addresses in it."""

import re

import pytest

from libs.mail import hints_de, hints_en
from libs.mail.hints import Us, for_owner, hint
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Language
from libs.mail.trouble import Server, Trouble

US = Us(("192.0.2.1", "2001:db8::1"), "mx1.backup.example")
THEM = "192.0.2.1 and 2001:db8::1 (mx1.backup.example)"
NO_ADDRESS = (Trouble.CATCH_ALL, Trouble.LATE)  # nothing is to be allowed there


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("at", Server)
@pytest.mark.parametrize("stuck", Trouble)
def test_every_trouble_has_a_hint_at_every_server(stuck: Trouble, at: Server, language: Language) -> None:
    """No row is missing and none is left with a gap; each names both addresses and fits a screen."""
    text = hint(stuck, at, US, language)
    assert text.startswith("Your mail server " if language is Language.EN else "Ihr Mailserver ")
    assert text.endswith(".")
    assert "{address}" not in text
    assert "{each}" not in text
    assert len(text) < 800
    if stuck not in NO_ADDRESS:
        assert "192.0.2.1" in text
        assert "2001:db8::1" in text


def test_what_is_pasted_is_the_same_in_german() -> None:
    """Commands, settings and lines of files, but for a word between; and no row is missing."""
    assert set(hints_de.ADVICE) == set(hints_en.ADVICE)
    for at, stuck in hints_en.ADVICE:
        said = [hint(stuck, at, US, language) for language in (Language.EN, Language.DE)]
        english, german = [
            {each for each in re.findall("`([^`]+)`", text) if US.addresses[0] in each} for text in said
        ]
        assert english == german


def test_every_row_is_reached() -> None:
    """A row of the table that no trouble at its server leads to would be dead."""
    used = {hint(stuck, at, US).partition(": ")[2] for stuck in Trouble for at in Server}
    for at, stuck in hints_en.ADVICE:
        assert hint(stuck, at, US).partition(": ")[2] in used


@pytest.mark.parametrize(
    ("stuck", "at", "text"),
    [
        (
            Trouble.LISTED,
            Server.POSTSCREEN,
            f"Your mail server refuses {THEM} because of a block list: "
            "write `192.0.2.1 permit` and `2001:db8::1 permit` into /etc/postfix/postscreen_backupmx.cidr "
            "and set `postscreen_access_list = permit_mynetworks, "
            "cidr:/etc/postfix/postscreen_backupmx.cidr` in main.cf; then `postfix reload`.",
        ),
        (
            Trouble.ADDRESS,
            Server.SENDMAIL,
            f"Your mail server refuses {THEM}: add `Connect:192.0.2.1 OK` "
            "and `Connect:IPv6:2001:db8::1 OK` to /etc/mail/access and run `makemap hash /etc/mail/access < "
            "/etc/mail/access`.",
        ),
        (
            Trouble.GREYLIST,
            Server.POSTGREY,
            f"Your mail server greylists {THEM}: add `192.0.2.1` and "
            "`2001:db8::1`, a line each, to /etc/postgrey/whitelist_clients.local (or the file that "
            "--whitelist-clients names) and restart Postgrey.",
        ),
        (
            Trouble.GREYLIST,
            Server.RSPAMD,
            f"Your mail server greylists {THEM}: put "
            "`backupmx { priority "
            '= high; ip = ["192.0.2.1","2001:db8::1"]; apply { want_spam = yes; } }` into '
            "/etc/rspamd/local.d/settings.conf and reload Rspamd.",
        ),
        (
            Trouble.DROPPED,
            Server.ANY,
            f"Your mail server does not answer {THEM}: if it is up, see "
            "whether the firewall or fail2ban drops 192.0.2.1 and 2001:db8::1: `fail2ban-client unban "
            "192.0.2.1 2001:db8::1`, and `ignoreip = 127.0.0.1/8 ::1 192.0.2.1 2001:db8::1` in "
            "/etc/fail2ban/jail.local.",
        ),
    ],
)
def test_the_words(stuck: Trouble, at: Server, text: str) -> None:
    """What an owner reads, to the letter."""
    assert hint(stuck, at, US) == text


def test_other_hosts_and_no_addresses() -> None:
    """All hosts have to be allowed; where no address is published, the name stands for it."""
    several = hint(Trouble.ADDRESS, Server.ANY, US._replace(others=("mx2.backup.example",)))
    assert several.endswith(" The same for the addresses of mx2.backup.example.")
    assert "allow mx1.backup.example on" in hint(Trouble.ADDRESS, Server.ANY, US._replace(addresses=()))


def facts(callouts: Callouts, **more: str | float) -> PrimaryFacts:
    return PrimaryFacts("office.example", callouts, 1.0, **more)  # type: ignore[arg-type]


def state(health: Health, last_reply: str = "") -> PrimaryState:
    return PrimaryState("office.example", health, 1.0, last_reply=last_reply)


LISTED = "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("known", "primary", "stuck", "at"),
    [
        (None, None, None, Server.ANY),
        (facts(Callouts.OPEN), state(Health.UP), None, Server.ANY),
        (facts(Callouts.OPEN), state(Health.DEFERRING, "MAIL: 421 4.3.2 busy"), None, Server.ANY),
        (facts(Callouts.BLOCKED, reply=LISTED), state(Health.UP), Trouble.LISTED, Server.POSTFIX),
        (facts(Callouts.BLOCKED, reply=LISTED, server="zimbra"), None, Trouble.LISTED, Server.ZIMBRA),
        (facts(Callouts.BLOCKED, reply="550 no", server="exim"), None, Trouble.ADDRESS, Server.EXIM),
        (facts(Callouts.BLOCKED, server="a later version's"), None, Trouble.ADDRESS, Server.ANY),
        (None, state(Health.REFUSING, f"RCPT: {LISTED}"), Trouble.LISTED, Server.POSTFIX),
        (None, state(Health.REFUSING, "550 5.7.23 SPF fail"), Trouble.SPF, Server.ANY),
        (facts(Callouts.OPEN, server="kerio"), state(Health.REFUSING), Trouble.ADDRESS, Server.KERIO),
        (None, state(Health.DOWN, "CONNECT: timeout"), Trouble.DROPPED, Server.ANY),
        (None, state(Health.DOWN, "BANNER: closed"), Trouble.DROPPED, Server.ANY),
        (None, state(Health.DOWN, "BANNER: malformed"), None, Server.ANY),
        (None, state(Health.DOWN, "no MX records"), None, Server.ANY),
        (facts(Callouts.CATCH_ALL), state(Health.UP), Trouble.CATCH_ALL, Server.ANY),
        (facts(Callouts.LATE_REJECT), None, Trouble.LATE, Server.ANY),
        (facts(Callouts.OPEN, greylisted=NOW - 86_400), None, Trouble.GREYLIST, Server.ANY),
        (facts(Callouts.OPEN, greylisted=NOW - 8 * 86_400), None, None, Server.ANY),
        (
            facts(Callouts.OPEN, greylisted=NOW, greylister="postgrey", server="postfix"),
            None,
            Trouble.GREYLIST,
            Server.POSTGREY,
        ),
        (facts(Callouts.OPEN, greylisted=NOW, greylister="x"), None, Trouble.GREYLIST, Server.ANY),
        (facts(Callouts.BLOCKED, reply="550 no", greylister="postgrey"), None, Trouble.ADDRESS, Server.ANY),
    ],
)
def test_for_the_owner(
    known: PrimaryFacts | None, primary: PrimaryState | None, stuck: Trouble | None, at: Server
) -> None:
    """The worst first; nothing where nothing is wrong that the owner could mend."""
    assert for_owner(known, primary, US, NOW) == ("" if stuck is None else hint(stuck, at, US))
