"""Callouts over the embedded log, a real DNS server and a real primary: what is asked, answered, never
dialled."""

import asyncio
import time
from pathlib import Path

import pytest

from libs import topics
from libs.log.sqlite import SqliteLog
from libs.mail.codec import decode_request, encode
from libs.mail.knowledge import (
    Callout,
    Health,
    Observed,
    PrimaryState,
    RecipientStatus,
    RecipientTry,
    Sight,
    Status,
)
from libs.mail.knowledge import Callouts as State
from libs.mail.records import Domain, Flush
from services.verify.calls import IDLE_S
from services.verify.learning import Lifetimes
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.verify.house import ANN, BOB, EVE, PARTITIONS, House, asked, at, house


async def test_both_answers(tmp_path: Path) -> None:
    """A recipient that exists is deliverable, one that does not is not; each costs one RCPT and never
    DATA."""
    async with at(known={ANN}) as primary, house(tmp_path, primary) as it:
        await it.add()
        yes, no = await it.ask(ANN), await it.ask(BOB)
        assert isinstance(yes, RecipientStatus)
        assert isinstance(no, RecipientStatus)
        assert (yes.status, yes.source, no.status) == (Status.DELIVERABLE, "callout", Status.UNDELIVERABLE)
        commands = [command for visit in primary.visits for command in visit.commands]
        assert commands.count(f"RCPT TO:<{ANN}>") == commands.count(f"RCPT TO:<{BOB}>") == 1
        assert "MAIL FROM:<postmaster@mx1.backup.example>" in commands
        assert "DATA" not in commands
        assert primary.visits[0].client == "127.0.0.9"
        assert primary.violations == []
        facts = await until(it.facts)
        assert (facts.callouts, facts.size, facts.smtputf8, facts.dsn) == (State.OPEN, 52428800, True, True)


async def test_a_known_recipient_is_not_asked_about_again(tmp_path: Path) -> None:
    """A question about a recipient with a valid status is answered by its record, without a connection."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        first = await it.ask(ANN)
        commands = [command for visit in primary.visits for command in visit.commands]
        for _ in range(3):
            assert await it.ask(ANN) == first
        assert [c for visit in primary.visits for c in visit.commands if c.startswith("RCPT")] == [
            c for c in commands if c.startswith("RCPT")
        ]


async def test_one_session_for_many(tmp_path: Path) -> None:
    """Many recipients of one primary, asked about at once, share sessions; none is asked about twice at a
    time."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        names = [f"user{number}@office.example" for number in range(20)]
        await asyncio.gather(*(it.ask(name) for name in names for _ in range(3)))
        assert sorted(asked(primary)) == sorted(names)
        assert len(primary.visits) == 1


@pytest.mark.parametrize(
    ("stage", "reply", "outcome"),
    [
        ("RCPT", "450 4.2.1 mailbox busy", "deferred"),
        ("RCPT", "550 5.7.1 not from you", "policy"),
        ("RCPT", "451 4.3.0 LDAP away", "overloaded"),
        ("RCPT", "!drop", "closed"),
        ("MAIL", "421 4.3.2 busy", "overloaded"),
        ("BANNER", "421 4.3.2 busy", "overloaded"),
        ("BANNER", "!drop", "closed"),
    ],
)
async def test_cannot_verify_answers_at_once(tmp_path: Path, stage: str, reply: str, outcome: str) -> None:
    """What says nothing of the mailbox is written as a try, so that nobody waits for the deadline."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say(stage, reply)
        await it.add()
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == outcome
        assert it.status(ANN) is None


async def test_quota_proves_that_the_mailbox_exists(tmp_path: Path) -> None:
    """452 4.2.2 is deliverable: the mail waits until there is room."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say("RCPT", "452 4.2.2 mailbox full")
        await it.add()
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE


async def test_an_unreachable_primary_is_not_dialled_for_each(tmp_path: Path) -> None:
    """After every address failed the next questions are answered at once; it is dialled again after 15 s."""
    clock = Clock()
    async with at() as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await primary.down()
        for name in (ANN, BOB):
            answer = await it.ask(name)
            assert isinstance(answer, RecipientTry)
            assert answer.last_outcome == "unreachable"
        await primary.up()
        assert isinstance(await it.ask(EVE), RecipientTry)
        assert primary.visits == []
        clock.advance(61)
        await it.ask(EVE)
        assert it.status(EVE) is Status.DELIVERABLE


async def test_all_addresses_of_the_best_preference_are_tried(tmp_path: Path) -> None:
    """One dead address of the best MX is no outage; a worse MX that takes anything is never asked."""
    zone = """
    office.example     MX 10 mx.office.example
                       MX 15 relay.example
                       MX 20 mx1.backup.example
    mx.office.example  A 127.0.0.2
                       A 127.0.0.3
    relay.example      A 127.0.0.4
    mx1.backup.example A 127.0.0.9
    """
    async with (
        at(known={ANN}) as primary,
        Primary(address="127.0.0.4", port=primary.port) as relay,
        house(tmp_path, primary, zone=zone) as it,
    ):
        await it.add()
        await asyncio.gather(*(it.ask(f"user{number}@office.example") for number in range(4)))
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE
        assert it.status("user0@office.example") is Status.UNDELIVERABLE
        assert relay.visits == []


@pytest.mark.parametrize(
    ("settings", "outcome"), [({"active_since": 0.0}, "pending"), ({"suspended": True}, "suspended")]
)
async def test_domains_that_are_never_dialled(
    tmp_path: Path, settings: dict[str, object], outcome: str
) -> None:
    """A pending or suspended domain gets an answer and no connection; so does one that is not ours."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add(**settings)
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == outcome
        other = await it.ask("ann@gmail.example")
        assert isinstance(other, RecipientTry)
        assert other.last_outcome == "no domain"
        assert (primary.visits, it.zone.questions) == ([], [])


@pytest.mark.parametrize(
    ("zone", "outcome"),
    [
        ("", "no primary"),
        ("office.example MX 0 .", "no primary"),
        ("office.example MX 10 mx1.backup.example\nmx1.backup.example A 127.0.0.2", "no primary"),
        ("office.example !servfail", "dns trouble"),
        ("office.example MX 10 mx.office.example\nmx.office.example !servfail", "dns trouble"),
        ("office.example MX 10 mx.office.example\nmx.office.example A 10.0.0.1", "forbidden"),
    ],
)
async def test_no_primary_to_ask(tmp_path: Path, zone: str, outcome: str) -> None:
    """Without a server above us, and with DNS trouble, nothing is known: never undeliverable."""
    async with at() as primary, house(tmp_path, primary, zone=zone) as it:
        await it.add()
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == outcome
        assert primary.visits == []


async def test_greylisting_is_asked_again_in_the_background(tmp_path: Path) -> None:
    """A greylisted recipient is asked about again later, though nobody asks."""
    async with at() as primary, house(tmp_path, primary, lifetimes=Lifetimes(greylist_s=0.1)) as it:
        link = "http://postgrey.schweikert.ch/help/office.example.html"
        primary.say(
            "RCPT", f"450 4.2.0 <{ANN}>: Recipient address rejected: Greylisted, see {link}", to=ANN, times=1
        )
        await it.add()
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == "greylisted"
        await until(lambda: "/etc/postgrey/whitelist_clients.local" in it.events())
        await until(lambda: it.status(ANN) is Status.DELIVERABLE)


async def test_a_flip_needs_a_second_witness_and_a_control(tmp_path: Path) -> None:
    """A known recipient that is denied is in doubt first; 15 min later, beside an accepted control, it is
    gone."""
    clock = Clock()
    async with at(known={ANN, BOB}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await it.ask(ANN)
        await it.ask(BOB)
        assert primary.known is not None
        primary.known.discard(ANN)
        await it.advance(7 * 86400)
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.against_since > 0
        assert it.status(ANN) is Status.DELIVERABLE
        await it.advance(900)  # asked again in the background
        await until(lambda: it.status(ANN) is Status.UNDELIVERABLE)
        await until(lambda: it.tried(ANN) is None)  # the doubt is over
        assert it.status(BOB) is Status.DELIVERABLE


async def test_a_control_that_is_gone_is_nobodys_witness(tmp_path: Path) -> None:
    """Two of three known recipients have left: the first one is doubted, and its control is, too, so that the
    third one bears witness."""
    clock = Clock()
    async with at(known={ANN, BOB, EVE}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        for name in (ANN, BOB, EVE):
            await it.ask(name)
        assert primary.known is not None
        primary.known -= {ANN, BOB}
        await it.advance(3 * 86400)
        await it.ask(BOB, anew=True)
        await until(lambda: (tried := it.tried(ANN)) is not None and tried.against_since)
        await it.advance(900)
        await until(lambda: it.status(BOB) is it.status(ANN) is Status.UNDELIVERABLE)
        assert it.status(EVE) is Status.DELIVERABLE


async def test_a_doubt_ends_with_the_next_yes(tmp_path: Path) -> None:
    """Without another recipient to ask about, a flip takes 24 h; that the first no was a mistake does not."""
    clock = Clock()
    async with at(known={ANN}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await it.ask(ANN)
        await it.advance(7 * 86400)
        primary.say("RCPT", "550 5.1.1 no such user", to=ANN, times=2)
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        since = answer.against_since
        assert since > 0
        await it.advance(900)
        await until(lambda: (tried := it.tried(ANN)) is not None and tried.last_tried > since)
        await it.advance(900)
        await until(lambda: it.tried(ANN) is None)
        assert it.status(ANN) is Status.DELIVERABLE


async def test_a_primary_that_lost_its_users_pulls_the_brake(tmp_path: Path) -> None:
    """Three known recipients denied within an hour: no negative is written until one is confirmed again."""
    clock = Clock()
    names = [f"user{number}@office.example" for number in range(4)]
    async with at(known=set(names)) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        for name in names:
            await it.ask(name)
        everybody, primary.known = primary.known, set()
        await it.advance(7 * 86400)
        for name in names[:3]:
            assert isinstance(await it.ask(name), RecipientTry)
        await until(lambda: (facts := it.facts()) is not None and facts.braked)
        nobody = await it.ask("nobody@office.example")
        assert isinstance(nobody, RecipientTry)
        assert nobody.last_outcome == "braked"
        await it.advance(30 * 86400)
        await it.ask(names[0])
        assert {it.status(name) for name in names} == {Status.DELIVERABLE}
        primary.known = everybody
        await it.advance(901)
        await it.ask(names[3])
        await until(lambda: (facts := it.facts()) is not None and not facts.braked)


async def test_what_another_owner_heard_pulls_the_brake_too(tmp_path: Path) -> None:
    """Two recipients were doubted while the partition was somebody else's; the third one is denied here."""
    clock = Clock()
    names = [f"user{number}@office.example" for number in range(4)]
    async with at(known=set(names)) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        for name in names:
            await it.ask(name)
        claim = it.callouts.claim_of("office.example")
        assert claim is not None
        it.callouts.lost(claim)
        for name in names[:2]:
            doubt = RecipientTry(name, clock.wall(), "contradicted", clock.wall(), "mx2.backup.example")
            partition = topics.partition_of("office.example", PARTITIONS)
            key = b"try:" + name.encode()
            await it.deps.log.append("recipients", partition, key, encode(doubt), within=PATIENCE_S)
        await until(lambda: it.tried(names[0]) and it.tried(names[1]))
        it.callouts.gained(claim)
        await it.put("callouts", names[2], Observed(names[2], "RCPT", "550 5.1.1 no such user"))
        await until(lambda: it.tried(names[2]))
        await until(lambda: (facts := it.facts()) is not None and facts.braked)


async def test_a_dictionary_attack_is_stopped(tmp_path: Path) -> None:
    """After 30 negatives in an hour unknown recipients are not asked about; known ones still are."""
    clock = Clock()
    async with at(known={ANN}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await it.ask(ANN)
        await asyncio.gather(*(it.ask(f"guess{number}@office.example") for number in range(60)))
        outcomes = [tried for n in range(60) if (tried := it.tried(f"guess{n}@office.example")) is not None]
        assert {tried.last_outcome for tried in outcomes} == {"budget"}
        guessed = [name for name in asked(primary) if "guess" in name]
        assert 30 <= len(guessed) < 30 + 8
        assert len(guessed) + len(outcomes) == 60
        before = len([c for visit in primary.visits for c in visit.commands if ANN in c])
        await it.advance(7 * 86400 - 3600)
        await it.advance(3600)
        await it.ask(ANN)
        assert len([c for visit in primary.visits for c in visit.commands if ANN in c]) == before + 1
        await it.ask("later@office.example")
        assert it.status("later@office.example") is Status.UNDELIVERABLE


async def test_sessions_end_before_the_primary_loses_patience(tmp_path: Path) -> None:
    """No session brings more than 15 negative answers (Postfix closes after 20)."""
    async with at(known=set()) as primary, house(tmp_path, primary) as it:
        await it.add()
        await asyncio.gather(*(it.ask(f"guess{number}@office.example") for number in range(30)))
        assert max(sum(c.startswith("RCPT") for c in visit.commands) for visit in primary.visits) <= 15
        assert len(primary.visits) >= 2


async def test_a_block_is_remembered(tmp_path: Path) -> None:
    """Who refuses us in the banner is `blocked`, dialled every 15 min only, and open after the first
    answer."""
    clock = Clock()
    async with at() as primary, house(tmp_path, primary, clock=clock) as it:
        primary.say("BANNER", "554 5.7.1 blocked using dnsbl.example")
        await it.add()
        answer = await it.ask(ANN)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == "policy"
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.BLOCKED)
        visits = len(primary.visits)
        clock.advance(600)
        answer = await it.ask(BOB)
        assert isinstance(answer, RecipientTry)
        assert (answer.last_outcome, len(primary.visits)) == ("blocked", visits)
        primary.say("BANNER", "")
        clock.advance(301)
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.OPEN)


async def test_two_recipients_refused_for_policy_are_a_block(tmp_path: Path) -> None:
    """One 5.7.1 at RCPT may be that recipient's; two different ones in a row are about us."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say("RCPT", "550 5.7.1 no")
        await it.add()
        await it.ask(ANN)
        assert (await until(it.facts)).callouts is State.OPEN
        await it.ask(BOB)
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.BLOCKED)


async def test_a_recipient_in_two_spellings_is_no_block(tmp_path: Path) -> None:
    """ann@ and ANN@ are one recipient, whose own policy may refuse us."""
    clock = Clock()
    async with at() as primary, house(tmp_path, primary, clock=clock) as it:
        primary.say("RCPT", "550 5.7.1 no")
        await it.add()
        await it.ask(ANN)
        await it.advance(61)
        await it.ask("ANN@office.example")
        assert (await until(it.facts)).callouts is State.OPEN
        await it.ask(BOB)
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.BLOCKED)


async def test_whether_the_primary_is_up_is_asked_anew(tmp_path: Path) -> None:
    """Admission `fallback`: what is known of a recipient does not tell whether its primary is up, unless it
    was said within a minute."""
    clock = Clock(time.time())
    async with at(known={ANN}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await it.ask(ANN)
        visits = len(primary.visits)
        await it.ask(ANN, anew=True)
        assert len(primary.visits) == visits
        await it.advance(3600)
        await it.ask(ANN)
        assert len(primary.visits) == visits
        answer = await it.ask(ANN, anew=True)
        assert isinstance(answer, RecipientStatus)
        assert answer.confirmed == clock.wall()
        await primary.down()
        clock.advance(61)
        answer = await it.ask(ANN, anew=True)
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == "unreachable"
        assert it.status(ANN) is Status.DELIVERABLE


async def test_a_late_rejecter_is_asked_whether_it_is_up(tmp_path: Path) -> None:
    """Its 250 to RCPT says nothing of the recipient, but that it is up."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say("RCPT", "250 2.1.5 whoever that is")
        await it.add()
        await it.put("callouts", EVE, Observed(EVE, "DOT", "550 5.1.1 no such user"))
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.LATE_REJECT)
        answer = await it.ask(BOB)
        assert isinstance(answer, RecipientTry)
        assert (answer.last_outcome, asked(primary)) == ("late_reject", [])
        answer = await it.ask(ANN, anew=True)
        assert isinstance(answer, RecipientTry)
        assert (answer.last_outcome, asked(primary)) == ("up", [ANN])
        assert it.status(ANN) is None


async def test_a_sight_is_no_question(tmp_path: Path) -> None:
    """What ingest tells its like on `callouts` is stepped over: not dialled for, not quarantined."""
    async with at(known={ANN}) as primary, house(tmp_path, primary) as it:
        await it.add()
        partition = topics.partition_of("office.example", PARTITIONS)
        await it.deps.log.append(
            "callouts", partition, topics.SIGHT + b"00ff", encode(Sight("mx2.backup.example")), within=5
        )
        await it.ask(ANN)
        quarantined = it.deps.metrics.registry.get_sample_value(
            "backupmx_quarantined_records_total", {"topic": "callouts"}
        )
        assert not quarantined
        assert len(primary.visits) == 1


async def test_deliveries_teach(tmp_path: Path) -> None:
    """250 and 5.1.1 of a delivery are learnt; an unknown user after the dot marks a late rejecter (it takes
    everybody at RCPT, should it be asked meanwhile)."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say("RCPT", "250 2.1.5 whoever that is")
        await it.add()
        await it.put("callouts", ANN, Observed(ANN, "RCPT", "250 2.1.5 ok"))
        await it.put("callouts", BOB, Observed(BOB, "RCPT", "550 5.1.1 no such user"))
        await it.put("callouts", EVE, Observed(EVE, "RCPT", "451 4.3.0 later"))
        await until(lambda: it.status(ANN) is Status.DELIVERABLE and it.status(BOB) is Status.UNDELIVERABLE)
        assert it.status(EVE) is it.tried(EVE) is None
        await it.put("callouts", EVE, Observed(EVE, "DOT", "550 5.1.1 no such user"))
        await until(lambda: (facts := it.facts()) is not None and facts.callouts is State.LATE_REJECT)
        late = await it.ask("new@office.example")
        assert isinstance(late, RecipientTry)
        assert late.last_outcome == "late_reject"
        assert asked(primary) == []


async def test_an_answer_during_an_outage_wakes_deliver(tmp_path: Path) -> None:
    """A primary that is believed down and answers a callout gets its waiting mail flushed, once."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.put("primaries", "office.example", PrimaryState("office.example", Health.DOWN, 5.0))
        await until(lambda: it.known.primary("office.example"))
        await it.ask(ANN)
        await it.ask(BOB)
        partition = topics.partition_of("office.example", PARTITIONS)
        record = await it.deps.log.read("requests", partition, 0, b"office.example")
        assert record.value is not None
        flush = decode_request(record.value)
        assert isinstance(flush, Flush)
        assert (flush.domain, flush.by) == ("office.example", "callout")
        assert (await it.deps.log.bounds("requests", partition)).end == 1


async def test_old_questions_are_not_dialled_and_fresh_ones_are(tmp_path: Path) -> None:
    """After downtime only what somebody still waits for is asked; what deliveries saw is learnt all the
    same."""
    clock = Clock()
    async with at() as primary:
        partition = topics.partition_of("office.example", PARTITIONS)
        async with SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=clock) as log:
            for name in (ANN, BOB):
                value = encode(Callout(name, "mx1.backup.example"))
                await log.append("callouts", partition, name.encode(), value, within=PATIENCE_S)
                clock.advance(15)
            seen = encode(Observed(EVE, "RCPT", "250 ok"))
            await log.append("callouts", partition, EVE.encode(), seen, within=PATIENCE_S)
            domain = encode(Domain("office.example", 1.0, active_since=1.0))
            await log.append("domains", partition, b"office.example", domain, within=PATIENCE_S)
        async with house(tmp_path, primary, clock=clock) as it:
            await until(lambda: it.status(BOB) is Status.DELIVERABLE)
            await until(lambda: it.status(EVE) is Status.DELIVERABLE)
            assert it.status(ANN) is None
            assert [c for visit in primary.visits for c in visit.commands if ANN in c] == []
            committed = await log_position(it)
        async with house(tmp_path, primary, clock=clock) as it:
            await it.ask("new@office.example")
            assert committed == 3
            assert [c for visit in primary.visits for c in visit.commands if BOB in c] == [f"RCPT TO:<{BOB}>"]


async def log_position(it: House) -> int | None:
    """What the group has done, once it is settled."""
    await it.callouts.drain()
    claim = it.callouts.claim_of("office.example")
    assert claim is not None
    return await it.deps.log.commit(claim, "callouts")


async def test_nonsense_on_the_topic_stops_nobody(tmp_path: Path) -> None:
    """A record that cannot be read and a mailbox that is none are counted and stepped over (rule 8)."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        partition = topics.partition_of("office.example", PARTITIONS)
        await it.deps.log.append("callouts", partition, b"x", b"\xc1nonsense", within=PATIENCE_S)
        await it.put("callouts", "a@b@office.example", Callout("a\r\nRSET@office.example", "h"))
        await it.put("callouts", ANN, Observed(ANN, "RCPT", "what"))
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE
        assert (
            it.deps.metrics.registry.get_sample_value(
                "backupmx_quarantined_records_total", {"topic": "callouts"}
            )
            == 2
        )


async def test_utf8_is_asked_only_where_it_is_understood(tmp_path: Path) -> None:
    """A local part in UTF-8 at a primary without SMTPUTF8 cannot be verified, and does not spoil the
    others."""
    name = "jürgen@office.example"
    async with at(capabilities=("PIPELINING",)) as primary, house(tmp_path, primary) as it:
        await it.add()
        answer, _ = await asyncio.gather(it.ask(name), it.ask(ANN))
        assert isinstance(answer, RecipientTry)
        assert answer.last_outcome == "smtputf8"
        assert it.status(ANN) is Status.DELIVERABLE
        assert primary.violations == []


async def test_a_kept_session_that_was_closed_costs_nobody_an_answer(tmp_path: Path) -> None:
    """The primary drops the idle session just when the next question comes: it is asked on a new one."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(ANN)
        primary.say("MAIL", "!drop", times=1)
        await it.ask(BOB)
        assert it.status(BOB) is Status.DELIVERABLE
        assert len(primary.visits) == 2


async def test_draining_waits_for_the_answer_under_way(tmp_path: Path) -> None:
    """SIGTERM while a primary thinks: its answer is still stored, and no idle session holds the end up."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(BOB)
        primary.slow(0.3, "RCPT")
        asking = asyncio.create_task(it.ask(ANN))
        await primary.until(lambda: any(ANN in c for visit in primary.visits for c in visit.commands))
        began = time.monotonic()
        await it.callouts.drain()
        assert time.monotonic() - began < IDLE_S
        await asking
        assert it.status(ANN) is Status.DELIVERABLE


async def test_many_that_are_new_are_reason_to_ask_for_nobody(tmp_path: Path) -> None:
    """A primary that begins to accept everybody right after its daily probe: a few dozen inventions are
    learnt, and not a day full of them."""
    async with at(known={ANN}) as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(ANN)
        await until(lambda: (facts := it.facts()) is not None and facts.probed)

        primary.say("RCPT", "250 2.1.5 whoever that is")
        invented = [f"invented{number}@office.example" for number in range(120)]
        for name in invented:
            await it.ask(name)
        facts = it.facts()
        assert facts is not None
        assert facts.callouts is State.CATCH_ALL
        assert len([name for name in invented if it.status(name)]) < 60


async def test_an_answer_that_took_too_long_keeps_no_position(tmp_path: Path) -> None:
    """A question that was given up for lost is asked again with the next: both are done with the one answer,
    and what was read is not read again after a restart."""
    clock, gate = Clock(), asyncio.Event()

    async def waits(_: str) -> None:
        await gate.wait()

    async with at(known={ANN}) as primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        primary.calls_back = waits
        asking = asyncio.create_task(it.ask(ANN))
        flights = it.callouts._flights
        first = await until(lambda: flights.get(ANN.encode()))
        await it.advance(61)
        await it.put("callouts", ANN, Callout(ANN, "mx2.backup.example"))
        await until(lambda: flights.get(ANN.encode()) is not first)
        gate.set()
        await asking
        await until(lambda: not flights)
        await until(lambda: not first.open)
