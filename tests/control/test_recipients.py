"""What is known of the recipients of a domain: read in pages, folded, and told to verify."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from libs.log.contract import Record
from libs.mail.codec import decode_callout, encode
from libs.mail.knowledge import (
    Allowed,
    Callouts,
    Forgotten,
    Imported,
    PrimaryFacts,
    RecipientStatus,
    RecipientTry,
    Status,
)
from services.control import roll as roll_module
from services.control.domains import Malformed, Refused, Unknown
from services.control.recipients import Roll, change, deliverable, summary, told
from tests.control.test_desk import office

ANN, EVE = "ann@office.example", "eve@office.example"
YES = RecipientStatus(ANN, Status.DELIVERABLE, 5.0, 6.0)
TRIED = RecipientTry(ANN, 7.0, "greylisted", imported=4.0)


def record(key: str, value: Struct | None) -> Record:
    octets = None if value is None else encode(value)
    return Record("recipients", 0, 0, key.encode(), octets, (), 1.0)


def rolled(*records: tuple[str, Struct | None]) -> Roll:
    roll = Roll()
    for key, value in records:
        if (found := change(record(key, value), "office.example", 0)) is not None:
            roll.fold(found)
    return roll


@pytest.mark.parametrize(
    "key", ["@office.example", "bob@other.example", "try:bob@other.example", "x@office.example.other"]
)
def test_nothing_of_others(key: str) -> None:
    """Facts of the primary, and recipients of other domains, change nothing here."""
    facts = PrimaryFacts("office.example", Callouts.OPEN, 1.0)
    assert change(record(key, facts if key.startswith("@") else YES), "office.example", 0) is None


def test_a_row() -> None:
    """Status and last try side by side; unknown where there is no status."""
    (row,) = rolled((ANN, YES), (f"try:{ANN}", TRIED)).rows()
    assert row == {
        "address": ANN, "status": "deliverable", "since": 5.0, "confirmed": 6.0, "source": "callout",
        "tried": 7.0, "outcome": "greylisted", "doubted_since": 0.0, "imported": 4.0,
    }  # fmt: skip
    (row,) = rolled((f"try:{ANN}", TRIED)).rows()
    assert (row["status"], row["outcome"], row["imported"]) == ("unknown", "greylisted", 4.0)
    assert rolled((ANN, YES), (f"try:{ANN}", TRIED), (ANN, None), (f"try:{ANN}", None)).rows() == []


def test_the_end_of_an_import() -> None:
    """An answer, or the end of the questions; the end of a question alone is none: its answer follows."""
    waits = rolled((f"try:{ANN}", TRIED))
    assert (waits.spoken_of(ANN), waits.answered(ANN)) == (True, False)
    assert not rolled((ANN, YES), (f"try:{ANN}", TRIED)).answered(ANN)
    assert not rolled((f"try:{ANN}", TRIED), (f"try:{ANN}", None)).answered(ANN)
    assert rolled((f"try:{ANN}", TRIED), (f"try:{ANN}", None), (ANN, YES)).answered(ANN)
    assert rolled((f"try:{ANN}", RecipientTry(ANN, 7.0, "catch_all"))).answered(ANN)
    assert rolled((f"try:{ANN}", None), (ANN, None)).answered(ANN)  # forgotten meanwhile
    assert not rolled().spoken_of(ANN)


def test_words() -> None:
    """How many of each, and why nothing is known of the rest."""
    no = RecipientStatus(EVE, Status.UNDELIVERABLE, 1.0, 1.0)
    rows = rolled((ANN, YES), (EVE, no), ("try:x@office.example", RecipientTry("x", 1.0, "blocked"))).rows()
    assert summary(rows) == "1 deliverable, 1 undeliverable, 1 unknown (blocked)"
    assert deliverable(rows) == [ANN]


KEYS = st.sampled_from([ANN, EVE, f"try:{ANN}", f"try:{EVE}"])


@given(st.lists(st.tuples(KEYS, st.booleans())), st.integers(0, 20))
def test_pages_come_to_the_same(written: list[tuple[str, bool]], cut: int) -> None:
    """The newest record of each key counts, whatever was compacted away before."""
    records = [(key, (TRIED if key.startswith("try:") else YES) if there else None) for key, there in written]
    newest = dict(records)
    compacted = [item for item in newest.items() if item[1] is not None]
    assert rolled(*records).rows() == rolled(*compacted).rows()
    assert rolled(*records[:cut], *records).rows() == rolled(*records).rows()


def test_what_is_told() -> None:
    """A verb, an address of the domain; else a sentence."""
    assert told("import", "Ann@Office.Example", "office.example", "root") == (
        ANN, Imported("Ann@office.example", "root")
    )  # fmt: skip
    assert isinstance(told("allow", ANN, "office.example", "root")[1], Allowed)
    assert isinstance(told("forget", ANN, "office.example", "root")[1], Forgotten)
    for verb, address in (("believe", ANN), ("allow", "ann"), ("allow", "ann@other.example")):
        with pytest.raises(Malformed):
            told(verb, address, "office.example", "root")


async def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is known, a page at a time; then what is new, and an empty page where nothing is."""
    monkeypatch.setattr(roll_module, "CHANGES", 1)
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        roll, after, pages = Roll(), None, 0
        for key, value in ((ANN, YES), (f"try:{EVE}", RecipientTry(EVE, 1.0, "deferred")), (ANN, YES)):
            await at.append("recipients", key, encode(value), "office.example")
        await at.append("recipients", "bob@office.example", b"\xc1", "office.example")
        while True:
            page = await at.desk.rolls.page("Office.Example", after)
            after, pages = page["after"], pages + 1
            for each in page["changes"]:
                roll.fold(each)
            if page["end"] and not page["changes"]:
                break
        assert [row["address"] for row in roll.rows()] == [ANN, EVE]
        await at.append("recipients", ANN, None, "office.example")
        page = await at.desk.rolls.page("office.example", after)
        assert page["changes"] == [{"key": ANN, "status": None}]
        assert page["primary"] == "unknown"
        with pytest.raises(Unknown):
            await at.desk.rolls.page("other.example", None)


async def test_verify_is_told(tmp_path: Path) -> None:
    """A record on `callouts` for each address, under its normal form; nothing where one of them is wrong."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        said = await at.desk.rolls.tell("office.example", "import", ["Ann@office.example", EVE], "root")
        assert said["told"] == 2
        with pytest.raises(Malformed):
            await at.desk.rolls.tell("office.example", "allow", [ANN, "bob@other.example"], "root")
        with pytest.raises(Malformed):
            await at.desk.rolls.tell("office.example", "allow", [ANN] * 501, "root")
        found = {each.key: decode_callout(each.value or b"") for each in await at.records("callouts")}
        assert found == {
            ANN.encode(): Imported("Ann@office.example", "root"), EVE.encode(): Imported(EVE, "root")
        }  # fmt: skip


async def test_a_pending_domain_is_asked_about_nobody(tmp_path: Path) -> None:
    """Anybody could have added it; its operator's word counts for it alone."""
    async with office(tmp_path, activation="dns") as at:
        await at.desk.domain_add("away.example")
        with pytest.raises(Refused, match="pending"):
            await at.desk.rolls.tell("away.example", "import", ["ann@away.example"], "root")
        assert (await at.desk.rolls.tell("away.example", "allow", ["ann@away.example"], "root"))["told"] == 1
