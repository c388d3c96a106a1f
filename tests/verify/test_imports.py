"""What the operator says of recipients, over the embedded log, a real DNS server and a real primary."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from libs.mail.knowledge import (
    OPERATOR,
    Allowed,
    Callout,
    Forgotten,
    Health,
    Imported,
    PrimaryState,
    RecipientStatus,
    Status,
    Told,
)
from services.verify.calls import GENTLE
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.verify.house import ANN, BOB, EVE, House, asked, at, house


async def say(it: House, kind: type[Told], mailboxes: Iterable[str]) -> None:
    for mailbox in mailboxes:
        await it.put("callouts", mailbox.lower(), kind(mailbox, "root"))  # type: ignore[arg-type]


async def test_imported_recipients_are_asked_about_one_by_one(tmp_path: Path) -> None:
    """Each costs one RCPT; the answers are statuses like any other, and nothing else stays."""
    async with at(known={ANN, BOB}) as primary, house(tmp_path, primary) as it:
        await it.add()
        await say(it, Imported, (ANN, BOB, EVE))
        await until(lambda: it.status(EVE) and it.tried(EVE) is None)
        assert [it.status(name) for name in (ANN, BOB)] == [Status.DELIVERABLE, Status.DELIVERABLE]
        assert it.status(EVE) is Status.UNDELIVERABLE
        assert asked(primary) == [ANN, BOB, EVE]
        assert primary.most_at_once == 1
        await until(lambda: not it.known.warming.domains())
        await say(it, Imported, (ANN,))
        await it.ask(BOB)  # what is known is an answer
        assert asked(primary) == [ANN, BOB, EVE]
        assert all("DATA" not in visit.commands for visit in primary.visits)


async def test_imports_wait_while_the_primary_is_away(tmp_path: Path) -> None:
    """A restart of verify does not lose them: they stand in `recipients`."""
    async with at(known={ANN}) as primary:
        async with house(tmp_path, primary) as it:
            await it.add()
            await it.put("primaries", "office.example", PrimaryState("office.example", Health.DOWN, 1.0))
            await until(lambda: it.known.primary("office.example"))
            await say(it, Imported, (ANN, BOB))
            await until(lambda: it.tried(BOB))
        async with house(tmp_path, primary) as it:
            assert it.known.warming.domains() == ["office.example"]
            assert primary.visits == []
            await it.put("primaries", "office.example", PrimaryState("office.example", Health.UP, 2.0))
            await until(lambda: it.status(ANN) and it.status(BOB))
            assert (it.status(ANN), it.status(BOB)) == (Status.DELIVERABLE, Status.UNDELIVERABLE)


async def test_greylisting_is_no_end(tmp_path: Path) -> None:
    """It is asked again after 15 minutes, and once only."""
    clock = Clock()
    async with at() as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        primary.say("RCPT", "450 4.2.0 greylisted, come back later", times=1)
        await say(it, Imported, (ANN,))
        tried = await until(lambda: (found := it.tried(ANN)) and found.last_outcome and found)
        assert tried.last_outcome == "greylisted"
        assert tried.imported
        clock.advance(901)
        await until(lambda: it.status(ANN) is Status.DELIVERABLE and it.tried(ANN) is None)
        assert asked(primary) == [ANN, ANN]


async def test_a_catch_all_is_not_asked(tmp_path: Path) -> None:
    """Its answers say nothing: the import ends, and the reason stands with each recipient."""
    async with at() as primary, house(tmp_path, primary) as it:
        await say(it, Imported, (ANN, BOB))  # nor is one for a domain that is not ours
        for name in (ANN, BOB):
            await until(lambda name=name: (found := it.tried(name)) and not found.imported)  # type: ignore[misc]
            assert it.status(name) is None
        tried = it.tried(ANN)
        assert tried is not None
        assert (tried.last_outcome, primary.visits) == ("no domain", [])


async def test_a_live_question_overtakes(tmp_path: Path) -> None:
    """While an imported recipient is asked about over a slow session, a question for the same recipient and
    one for another have a session of their own."""
    async with at(known={ANN, BOB}) as primary, house(tmp_path, primary) as it:
        await it.add()
        primary.say("RCPT", "!silent", to=ANN, times=1)
        await say(it, Imported, (ANN,))
        await primary.until(lambda: asked(primary) == [ANN])
        for name in (BOB, ANN):
            answer = await it.ask(name)
            assert isinstance(answer, RecipientStatus)
            assert answer.status is Status.DELIVERABLE
        assert primary.most_at_once == 2
        await until(lambda: it.tried(ANN) is None)


async def test_imported_strangers_spend_no_budget(tmp_path: Path) -> None:
    """31 imported recipients that do not exist, and a client's unknown one is asked about still."""
    quick = GENTLE._replace(per_s=100.0, burst=100.0)
    async with at(known={ANN}) as primary, house(tmp_path, primary, gently=quick) as it:
        await it.add()
        names = [f"nobody{number}@office.example" for number in range(31)]
        await say(it, Imported, names)
        await until(lambda: all(it.status(name) for name in names))
        answer = await it.ask(EVE)
        assert isinstance(answer, RecipientStatus)
        assert answer.status is Status.UNDELIVERABLE


async def test_the_operators_word(tmp_path: Path) -> None:
    """It stands whatever the primary says of the recipient, is no witness against others, and goes with
    `forget`; then the primary has the word."""
    async with at(known={BOB}) as primary, house(tmp_path, primary) as it:
        await it.add()
        await say(it, Allowed, (ANN,))
        await until(lambda: it.known.recipients.get(ANN.encode()))
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientStatus)
        assert (answer.source, answer.confirmed, asked(primary)) == (OPERATOR, 0.0, [])
        answer = await it.ask(ANN, anew=True)  # is the primary up? It denies her
        assert isinstance(answer, RecipientStatus)
        assert (answer.status, answer.source, asked(primary)) == (Status.DELIVERABLE, OPERATOR, [ANN])
        assert it.known.control(BOB.encode()) == ""
        await say(it, Forgotten, (ANN,))
        await until(lambda: it.known.recipients.get(ANN.encode()) is None)
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientStatus)
        assert answer.status is Status.UNDELIVERABLE


async def test_forgetting_ends_questions(tmp_path: Path) -> None:
    """Who is forgotten while an import or a second question waits is not asked about."""
    clock = Clock()
    async with at(known={BOB}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        primary.say("RCPT", "450 4.2.0 greylisted", to=ANN)
        await it.ask(ANN)
        await say(it, Forgotten, (ANN,))
        await until(lambda: it.known.recipients.get(b"try:" + ANN.encode()) is None)
        clock.advance(400)
        await say(it, Imported, (BOB,))
        await until(lambda: it.status(BOB))
        assert asked(primary) == [ANN, BOB]


async def test_an_import_during_a_question(tmp_path: Path) -> None:
    """Who waits for the answer is not told that there is none: the import joins the question under way."""
    async with at(known={ANN}) as primary, house(tmp_path, primary) as it:
        await it.add()
        primary.say("RCPT", "450 4.2.0 greylisted", to=ANN)
        primary.slow(0.3, "RCPT")
        await it.put("callouts", ANN, Callout(ANN, "mx1.backup.example"))
        await primary.until(lambda: primary.visits)
        watch = it.known.recipients.watch(b"try:" + ANN.encode())
        await say(it, Imported, (ANN,))
        await asyncio.wait_for(watch, PATIENCE_S)
        tried = it.tried(ANN)
        assert tried is not None
        assert tried.last_outcome == "greylisted"
        assert tried.imported
