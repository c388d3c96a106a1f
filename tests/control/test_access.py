"""Whom to block and to allow: what may be asked for, the desk over a real embedded log, and the API."""

import re
from pathlib import Path

import httpx
import pytest

from libs.mail.codec import decode
from libs.mail.records import Access, Installation, Permission
from services.control import access
from services.control.access import Listed, duration_s, subject
from services.control.api import application
from services.control.domains import Malformed, Refused, Unknown
from tests.control.test_desk import PARTITIONS, office

BLOCK, ALLOW = Permission.BLOCK, Permission.ALLOW


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7/32 ", "192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1"),
        ("Eve@Sender.Example", "eve@sender.example"),
        ("eve@MÜLLER.example", "eve@xn--mller-kva.example"),
        ("@Sender.Example.", "@sender.example"),
    ],
)
def test_a_subject_has_one_form(typed: str, kept: str) -> None:
    """Whatever was typed, ingest compares one form; it is its own form."""
    assert subject(typed) == kept
    assert subject(kept) == kept


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("192.0.2.7/24", "did you mean 192.0.2.7 or 192.0.2.0/24?"),
        ("0.0.0.0/0", "'0.0.0.0/0' is too wide: a rule is for a /8 at most"),
        ("::/0", "too wide"),
        ("192.0.2", "'192.0.2' is neither an IP address or network nor a sender"),
        ("sender.example", "nor a sender (eve@sender.example, @sender.example)"),
        ("", "'' is neither"),
        ("@", "'@' is neither a mail address nor @ and a domain"),
        ("eve@", "neither a mail address"),
        ("<eve@sender.example>", "neither a mail address"),
        ("fe80::1%eth0", "neither an IP address"),
    ],
)
def test_what_is_no_subject(typed: str, sentence: str) -> None:
    """One sentence."""
    with pytest.raises(Malformed, match=re.escape(sentence)):
        subject(typed)


def test_durations() -> None:
    """A number and a unit."""
    assert [duration_s(each) for each in ("90s", "15m", "2h", "7d")] == [90.0, 900.0, 7200.0, 604_800.0]
    for wrong in ("", "0s", "5", "-5m", "1.5h", "1w", "99999d", "1h30m"):
        with pytest.raises(Malformed, match="no duration such as 90s"):
            duration_s(wrong)


def test_rules_are_bounded() -> None:
    """Every ingest process holds them all; one that is there can be replaced all the same."""
    full = [Listed(Access(str(number), BLOCK), 0.0) for number in range(access.MOST)]
    with pytest.raises(Refused, match="10000 rules already"):
        access.added(full, Access("192.0.2.7", BLOCK))
    assert access.added(full, Access("7", ALLOW)) == Access("7", ALLOW)
    assert access.added(full[1:], Access("192.0.2.7", BLOCK))


def test_a_rule_ends_by_the_logs_clock() -> None:
    """Counted from the time at which the log took it."""
    listed = [Listed(Access("a", BLOCK, 60.0), 1000.0), Listed(Access("b", BLOCK), 1000.0)]
    assert access.ended(listed, 1059.9) == []
    assert access.ended(listed, 1060.0) == ["a"]
    assert [access.row(each)["until"] for each in listed] == [1060.0, 0.0]


async def test_block_allow_list_remove(tmp_path: Path) -> None:
    """A rule replaces the one before; it is in partition 0, is no relay domain, and the log's time counts."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        blocked = await at.desk.access_add("block", "192.0.2.7", None, "ann")
        assert (blocked["rule"], blocked["until"], blocked["by"]) == ("block", 0.0, "ann")
        await at.desk.access_add("block", "@Sender.Example", "1h", "ann")
        row = await at.desk.access_add("allow", "192.0.2.7", "60s", "bob")
        assert (row["rule"], row["until"] - row["since"]) == ("allow", 60.0)
        assert [each["subject"] for each in at.desk.access_list()] == ["192.0.2.7", "@sender.example"]
        assert [each["domain"] for each in at.desk.domain_list()] == ["office.example"]
        assert at.desk.register.book().whole
        assert await at.desk.access_remove("192.0.2.7", "bob") == {"subject": "192.0.2.7", "removed": True}
        with pytest.raises(Unknown, match=r"there is no rule for 192\.0\.2\.7"):
            await at.desk.access_remove("192.0.2.7", "bob")
        assert [each["subject"] for each in at.desk.access_list()] == ["@sender.example"]
        bounds = await at.log.bounds("domains", 0)
        record = await at.log.read("domains", 0, bounds.end - 3, b"access:@sender.example")
        assert decode(record.value or b"", Access) == Access("@sender.example", BLOCK, 3600.0, "ann")
        assert '"type":"Access"' in at.events.getvalue()
        assert "block @sender.example by ann" in at.events.getvalue()


async def test_a_rule_that_is_over_is_taken_back(tmp_path: Path) -> None:
    """By the leading control, so that the topic does not grow for ever."""
    async with office(tmp_path) as at:
        row = await at.desk.access_add("block", "192.0.2.7", "50s", "ann")
        await at.desk.register.tend()
        await at.until(at.desk.deps.events.log_time)  # before that nothing is over
        at.clock.advance(30)
        await at.desk.register.tend()
        assert at.desk.access_list() == [row]
        at.clock.advance(30)
        assert at.desk.access_list() == []
        await at.desk.register.tend()
        assert at.desk.register.listed() == []


async def test_another_installations_rules_are_left_alone(tmp_path: Path) -> None:
    """A sentence, and no record is written; domains that are missing are no reason to block nobody."""
    async with office(tmp_path, installation=Installation("another-one", PARTITIONS, 0)) as at:
        with pytest.raises(Refused, match="belongs to installation another-one"):
            await at.desk.access_add("block", "192.0.2.7", None, "ann")
    (tmp_path / "second").mkdir()
    async with office(tmp_path / "second", installation=Installation("installation-1", PARTITIONS, 7)) as at:
        assert await at.desk.access_add("block", "192.0.2.7", None, "ann")


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        ({"rule": "block", "subject": "192.0.2", "by": "a"}, 400, "neither an IP address"),
        ({"rule": "ban", "subject": "192.0.2.7", "by": "a"}, 400, "'ban' is neither block nor allow"),
        ({"rule": "block", "by": "a"}, 400, "the request lacks 'subject'"),
        ({"rule": "block", "subject": "192.0.2.7", "by": "a", "for": 5}, 400, "'for' must be text"),
        ({"rule": "block", "subject": "192.0.2.7", "by": "a", "for": "5"}, 400, "'5' is no duration"),
        ({"rule": "block", "subject": "192.0.2.7", "by": "a", "for": "5m"}, 200, ""),
    ],
)
async def test_the_api(tmp_path: Path, body: dict[str, object], code: int, sentence: str) -> None:
    """JSON in, JSON out; a mistake is one sentence."""
    async with office(tmp_path) as at:
        transport = httpx.ASGITransport(application(at.desk))
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            response = await client.post("/access", json=body)
            assert response.status_code == code
            assert sentence in response.json().get("error", "")
            rows = (await client.get("/access")).json()
            assert len(rows) == (code == 200)
