"""The desk and its API over a real embedded log and a real DNS server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.log.contract import BEGIN, Claim, Record
from libs.log.open import newest_installation, read_installation, write_installation
from libs.log.sqlite import SqliteLog
from libs.mail.codec import decode, decode_request, encode
from libs.mail.event import Event, EventType
from libs.mail.knowledge import (
    Callouts,
    Health,
    PrimaryFacts,
    PrimaryState,
    RecipientStatus,
    RecipientTry,
    Status,
)
from libs.mail.records import Domain, Flush, Installation, Unbrake
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.topics import partition_of
from services.control import desk as desk_module
from services.control import register
from services.control.api import application
from services.control.desk import Desk
from services.control.domains import Refused, Unknown
from services.control.register import Claims
from tests.control.test_queue import MAIL, record
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.zone import Zone

ID = "installation-1"
PARTITIONS = 3
NAMED = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 192.0.2.25
    mx1.backup.example   A 192.0.2.1
    only.example         MX 10 mx1.backup.example
    away.example         MX 10 mail.office.example
    sick.example         !servfail
"""


def config(folder: Path, activation: str) -> Config:
    return Config.model_validate(
        {
            "state_directory": folder,
            "installation": {
                "id": ID,
                "hosts": ["mx1.backup.example", "mx2.backup.example"],
                "operators": "postmaster@isp.example",
                "activation": activation,
            },
            "host": {"name": "mx1.backup.example", "ipv4": ["192.0.2.1"]},
            "smtp": {"listen": ["127.0.0.1:0"]},
        }
    )


class Office:
    """A desk with everything it needs."""

    def __init__(self, log: SqliteLog, desk: Desk, zone: Zone, clock: Clock, events: StringIO) -> None:
        self.log, self.desk, self.zone, self.clock, self.events = log, desk, zone, clock, events

    async def append(self, topic: str, key: str, value: bytes | None, domain: str, **more: Any) -> None:
        partition = partition_of(domain, PARTITIONS)
        await self.log.append(topic, partition, key.encode(), value, within=PATIENCE_S, **more)

    async def until(self, predicate: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not predicate():  # noqa: ASYNC110 the tables have no event for that
                await asyncio.sleep(0.005)

    async def domains(self) -> list[Domain | Installation]:
        """Every record of `domains` in the order of writing."""
        found = await self.records("domains")
        return [newest_installation([each]) or decode(each.value or b"", Domain) for each in found]

    async def records(self, topic: str) -> list[Record]:
        """All of them, in the order of writing."""
        found: list[Record] = []
        for partition in range(PARTITIONS):
            async with aclosing(self.log.follow(topic, {partition: BEGIN})) as batches:
                async for batch in batches:
                    found += batch.records
                    if batch.position >= batch.end:
                        break
        found.sort(key=lambda each: each.time)
        return found


@asynccontextmanager
async def office(
    folder: Path,
    activation: str = "trusted",
    text: str = NAMED,
    *,
    installation: Installation | None = None,
    log_clock: Clock | None = None,
) -> AsyncIterator[Office]:
    """`log_clock`: of the log and the desk, where a test moves it."""
    clock, metrics, lines = log_clock or Clock(), Metrics(), StringIO()
    async with (
        Zone(text) as zone,
        SqliteLog(folder / "log.sqlite", partitions=PARTITIONS, clock=log_clock or SystemClock()) as log,
    ):
        await write_installation(log, installation or Installation(ID, PARTITIONS, 0))
        dns = Dns(zone.servers, clock, 2.0)
        events = Events(
            log,
            clock,
            metrics,
            service="control",
            host="mx1.backup.example",
            partitions=PARTITIONS,
            out=lines,
        )
        desk = Desk(Deps(config(folder, activation), log, clock, dns, events, metrics, PARTITIONS))
        tasks = [
            asyncio.create_task(each) for each in (*desk.followers(), desk.notices.facts.run(), events.run())
        ]
        try:
            async with log.own("control", desk.register.claims):
                await desk.restored()
                yield Office(log, desk, zone, clock, lines)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await dns.close()


async def test_a_trusted_domain_is_active_at_once(tmp_path: Path) -> None:
    """activation `trusted` asks no DNS; the table, the count and the event say so."""
    async with office(tmp_path) as at:
        row = await at.desk.domain_add("Office.Example")
        assert (row["domain"], row["state"], row["waiting"]) == ("office.example", "active", 0)
        assert at.zone.questions == []
        assert await read_installation(at.log) == Installation(ID, PARTITIONS, 1)
        await until(lambda: '"type":"Domain"' in at.events.getvalue())
        assert at.desk.domain_list() == [row]
        await at.desk.domain_remove("office.example", "empty", "ann")
        assert await read_installation(at.log) == Installation(ID, PARTITIONS, 0, era=1)
        assert at.desk.domain_list() == []


async def test_dns_that_names_us_below_a_better_server_activates(tmp_path: Path) -> None:
    """activation `dns`: active at the add itself when the MX records are there already."""
    async with office(tmp_path, "dns") as at:
        assert (await at.desk.domain_add("office.example"))["state"] == "active"


@pytest.mark.parametrize("name", ["away.example", "only.example", "sick.example", "nix.example"])
async def test_dns_that_does_not_leaves_pending(tmp_path: Path, name: str) -> None:
    """Not named, named without a better server, DNS trouble, no such name."""
    async with office(tmp_path, "dns") as at:
        assert (await at.desk.domain_add(name))["state"] == "pending"
        await at.desk.register.tend()
        assert at.desk.domain_row(name)["state"] == "pending"


async def test_a_pending_domain_becomes_active_when_its_dns_changes(tmp_path: Path) -> None:
    """It is looked at again after pending_check_s, and stays active whatever DNS says later."""
    async with office(tmp_path, "dns") as at:
        await at.desk.domain_add("away.example")
        at.zone.set(NAMED + "    away.example  MX 20 mx1.backup.example\n")
        at.clock.advance(59)
        await at.desk.register.tend()
        assert at.desk.domain_row("away.example")["state"] == "pending"
        at.clock.advance(301)  # past the cached answer too
        await at.desk.register.tend()
        assert at.desk.domain_row("away.example")["state"] == "active"
        at.zone.set("")
        at.clock.advance(7200)
        await at.desk.register.tend()
        assert at.desk.domain_row("away.example")["state"] == "active"


async def test_an_add_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """The domain is there, its count is not: the next round raises it."""
    async with office(tmp_path) as at:
        await at.append("domains", "a.example", encode(Domain("a.example", 1.0, 1.0)), "a.example")
        await at.until(lambda: at.desk.register.book().domains)
        await at.desk.register.tend()
        assert await read_installation(at.log) == Installation(ID, PARTITIONS, 1)


async def test_another_installations_log_is_left_alone(tmp_path: Path) -> None:
    """A sentence, and no record is written."""
    async with office(tmp_path, installation=Installation("another-one", PARTITIONS, 0)) as at:
        with pytest.raises(Refused, match="belongs to installation another-one"):
            await at.desk.domain_add("a.example")
        await at.desk.register.tend()
        assert len(await at.domains()) == 1


async def test_mail_in_the_queue_is_seen_and_protects_its_domain(tmp_path: Path) -> None:
    """Rows are read from the log by their place; a domain with mail cannot be removed."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        queued = record()
        await at.append("queue", MAIL.id, queued.value, "office.example", headers=queued.headers)
        primary = PrimaryState("office.example", Health.DOWN, 5.0, waiting=1)
        await at.append("primaries", "office.example", encode(primary), "office.example")
        await at.until(lambda: at.desk.domain_list()[0]["primary"] == "down")
        await at.until(lambda: at.desk.domain_list()[0]["waiting"] == 1)
        page = await at.desk.queue_page("office.example", None, 10)
        assert (page["total"], page["after"], page["rows"][0]["queue_name"]) == (1, None, "waiting")
        assert (await at.desk.queue_show(MAIL.id))["sender"] == "eve@sender.example"
        with pytest.raises(Refused, match="1 mail waits"):
            await at.desk.domain_remove("office.example", "empty", "ann")
        await at.append("queue", MAIL.id, None, "office.example")
        await at.until(lambda: at.desk.domain_list()[0]["waiting"] == 0)
        with pytest.raises(Unknown, match="no mail aaaa"):
            await at.desk.queue_show(MAIL.id)
        await at.desk.domain_remove("office.example", "empty", "ann")


async def test_a_rewritten_mail_is_read_where_it_is_now(tmp_path: Path) -> None:
    """A record that was superseded between table and read is looked for again."""
    async with office(tmp_path) as at:
        queued = record()
        for _ in range(5):
            await at.append("queue", MAIL.id, queued.value, "office.example", headers=queued.headers)
            await at.log.sweep(lag_s=0)
            assert (await at.desk.queue_show(MAIL.id))["queue_id"] == MAIL.id


async def test_an_unreadable_record_is_counted_and_in_the_vault(tmp_path: Path) -> None:
    """Its neighbours are shown (rule 8); a mail that was known is not shown as it was before."""
    async with office(tmp_path) as at:
        queued = record()
        await at.append("queue", "broken", queued.value, "office.example", headers=queued.headers)
        await at.append("queue", "broken", b"\xc1", "office.example")
        await at.append("queue", MAIL.id, queued.value, "office.example", headers=queued.headers)
        await at.log.sweep(lag_s=0)
        await at.until(lambda: at.desk.deps.metrics.quarantined.labels("queue")._value.get() == 1)
        await at.until(lambda: MAIL.id.encode() in at.desk._queue.values)
        page = await at.desk.queue_page(None, None, 10)
        assert [row["queue_id"] for row in page["rows"]] == [MAIL.id]
        page = await at.desk.vault_page(None, None, 10)
        assert [(row["queue_id"], row["queue_name"]) for row in page["rows"]] == [("broken", "unreadable")]
        assert (await at.desk.vault_show("broken"))["queue_name"] == "unreadable"
        with pytest.raises(Unknown, match="in the vault"):
            await at.desk.vault_show(MAIL.id)
        with pytest.raises(Unknown, match="in the vault"):
            await at.desk.vault_delete(MAIL.id, "me")


async def test_known_recipients_are_counted(tmp_path: Path) -> None:
    """Of this domain, statuses only, each once."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        status = RecipientStatus("ann@office.example", Status.DELIVERABLE, 1.0, 1.0)
        await at.append("recipients", "ann@office.example", encode(status), "office.example")
        await at.append("recipients", "ann@office.example", encode(status), "office.example")
        await at.append("recipients", "ann@xoffice.example", encode(status), "office.example")
        tried = RecipientTry("eva@office.example", 1.0, "timeout")
        await at.append("recipients", "try:eva@office.example", encode(tried), "office.example")
        await at.append("recipients", "bob@office.example", encode(status), "office.example")
        await at.append("recipients", "bob@office.example", None, "office.example")
        shown = await at.desk.domain_show("office.example")
        assert shown["recipients"] == 1
        assert (shown["callouts"], shown["callout_brake"], shown["hint"]) == ("unknown", False, "")
        assert shown["settings"]["lifetime_s"] == 30 * 86400


async def test_a_primary_that_blocks_us_is_seen(tmp_path: Path) -> None:
    """The state, the line that shows it, and what its owner can do, with our address; nothing once it is
    over."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        shown = await at.desk.domain_show("office.example")
        assert (shown["callouts"], shown["hint"]) == ("unknown", "")
        reply = "554 5.7.1 <mx1.backup.example[192.0.2.1]>: Client host rejected: Access denied"
        facts = PrimaryFacts("office.example", Callouts.BLOCKED, 7.0, reply=reply, host="mx1.backup.example")
        await at.append("recipients", "@office.example", encode(facts), "office.example")
        shown = await at.desk.domain_show("office.example")
        assert (shown["callouts"], shown["callouts_since"], shown["recipients"]) == ("blocked", 7.0, 0)
        assert shown["callouts_reply"] == reply
        assert "`192.0.2.1 OK` into /etc/postfix/backupmx.cidr" in shown["hint"]
        assert shown["hint"].endswith("The same for the addresses of mx2.backup.example.")
        facts = PrimaryFacts("office.example", Callouts.OPEN, 8.0)
        await at.append("recipients", "@office.example", encode(facts), "office.example")
        shown = await at.desk.domain_show("office.example")
        assert (shown["callouts"], shown["callouts_reply"], shown["hint"]) == ("open", "", "")
        state = PrimaryState("office.example", Health.REFUSING, 9.0, last_reply="BANNER: 554 go away")
        await at.append("primaries", "office.example", encode(state), "office.example")
        await at.until(lambda: at.desk.domain_row("office.example")["primary"] == "refusing")
        assert "192.0.2.1" in (await at.desk.domain_show("office.example"))["hint"]


async def test_a_primary_that_accepts_everything_is_shown(tmp_path: Path) -> None:
    """What callouts found, and what the owner can do about it."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        facts = PrimaryFacts("office.example", Callouts.CATCH_ALL, 1.0, braked=True)
        await at.append("recipients", "@office.example", encode(facts), "office.example")
        shown = await at.desk.domain_show("office.example")
        assert (shown["callouts"], shown["callout_brake"]) == ("catch_all", True)
        assert shown["hint"].startswith("Your mail server accepts every recipient: make it refuse")


async def test_release_waits_for_verify(tmp_path: Path) -> None:
    """The brake is ended by verify; its event carries the id of the request."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        answering = asyncio.create_task(deliver(at, "callout brake released by me"))
        answer = await at.desk.domain_release("office.example", "me")
        await answering
        assert (answer["domain"], answer["text"]) == ("office.example", "callout brake released by me")


async def deliver(at: Office, text: str) -> None:
    """Answer the next request as deliver does."""
    partition = partition_of("office.example", PARTITIONS)
    async with aclosing(at.log.follow("requests", {partition: BEGIN})) as batches:
        async for batch in batches:
            for each in batch.records:
                request = decode_request(each.value or b"")
                assert isinstance(request, Flush | Unbrake)
                at.desk.deps.events.emit(
                    Event(
                        type=EventType.REQUEST, text=text,
                        domain=request.domain, request_id=request.request_id,
                    )
                )  # fmt: skip
                return


async def test_flush_waits_for_what_deliver_says(tmp_path: Path) -> None:
    """The request is on the log, and its event is the answer."""
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        answering = asyncio.create_task(deliver(at, "3 mails are tried"))
        answer = await at.desk.queue_flush("office.example", "me")
        await answering
        assert (answer["domain"], answer["text"]) == ("office.example", "3 mails are tried")


async def test_flush_without_deliver_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded; an unknown domain is refused at once."""
    monkeypatch.setattr(desk_module, "ANSWER_S", 0.05)
    async with office(tmp_path) as at:
        await at.desk.domain_add("office.example")
        with pytest.raises(Refused, match="deliver did not answer within"):
            await at.desk.queue_flush("office.example", "me")
        with pytest.raises(Unknown):
            await at.desk.queue_flush("nix.example", "me")


async def test_trace_of_an_address(tmp_path: Path) -> None:
    """Whoever is named in it as sender or recipient, however the address was written; nobody who only has it
    in his own."""
    async with office(tmp_path) as at:
        emit = at.desk.deps.events.emit
        emit(Event(EventType.RECEPTION, id="m1", domain="office.example", recipient="Ann@OFFICE.example"))
        emit(Event(EventType.RECEPTION, id="m2", domain="shop.example", sender="ann@office.example"))
        emit(Event(EventType.RECEPTION, id="m3", domain="office.example", recipient="joann@office.example"))
        emit(Event(EventType.RECEPTION, id="m4", domain="office.example", text="ann@office.example"))
        emit(Event(EventType.RECEPTION, id="m5", domain="office.example", recipient='"a b"@office.example'))
        await at.desk.deps.events.flush()
        found = await at.desk.trace_of("ANN@office.Example.")
        assert sorted(event["id"] for event in found) == ["m1", "m2"]
        assert [event["id"] for event in await at.desk.trace_of('"a b"@office.example')] == ["m5"]
        with pytest.raises(Unknown, match=r"names bob@office.example"):
            await at.desk.trace_of("bob@office.example")
        with pytest.raises(Refused, match="'a b' is no mail address"):
            await at.desk.trace_of("a b")


async def test_trace_tells_the_story_of_one_mail(tmp_path: Path) -> None:
    """The events with its id, oldest first, from every service and partition they went to."""
    async with office(tmp_path) as at:
        for kind, domain in (
            (EventType.RECEPTION, "office.example"),
            (EventType.RECEPTION, "other.example"),
            (EventType.DELIVERY, "office.example"),
        ):
            at.clock.advance(1)
            mail_id = "m1" if domain == "office.example" else "m2"
            at.desk.deps.events.emit(Event(kind, id=mail_id, domain=domain))
        await at.desk.deps.events.flush()
        await at.until(lambda: len(at.desk._trail._places) == 2)
        assert [event["type"] for event in await at.desk.trace("m1")] == ["Reception", "Delivery"]
        with pytest.raises(Unknown, match="names a mail nix"):
            await at.desk.trace("nix")


async def test_only_the_leading_control_changes_domains(tmp_path: Path) -> None:
    """Without number 0 a change is refused whole, at once, and nothing is written; with it, all is done."""
    async with office(tmp_path) as at:
        claims = at.desk.register.claims
        first = claims.held[0]
        claims.lost(first)
        with pytest.raises(Refused, match="the control of another host is in charge"):
            await at.desk.domain_add("office.example")
        await at.desk.register.tend()
        assert len(await at.domains()) == 1
        claims.gained(first)
        assert (await at.desk.domain_add("office.example"))["state"] == "active"


async def test_a_control_that_just_joined_waits_for_its_claims(tmp_path: Path) -> None:
    """A command right after the start is not refused because the group has not answered yet."""
    async with office(tmp_path) as at:
        claims = at.desk.register.claims
        held: dict[int, Claim] = dict(claims.held)
        for claim in held.values():
            claims.lost(claim)
        adding = asyncio.create_task(at.desk.domain_add("office.example"))
        await asyncio.sleep(0)
        for claim in held.values():
            claims.gained(claim)
        assert (await adding)["state"] == "active"


async def test_a_claim_lost_on_the_way_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log itself refuses what is written without the claim (rule 4); waiting for one is bounded."""
    monkeypatch.setattr(register, "JOIN_S", 0.05)
    async with office(tmp_path) as at:
        claims = at.desk.register.claims
        held = dict(claims.held)
        async with at.log.own("control", Claims()):  # takes its share: some claims end
            for claim in held.values():
                claims.gained(claim)
            claims.held[0] = next(claim for claim in held.values() if not claim.held())
            with pytest.raises(Refused, match="the control of another host is in charge"):
                await at.desk.domain_add("office.example")
        for claim in held.values():
            claims.lost(claim)
        claims.held.clear()
        with pytest.raises(Refused, match="has not let this control take part"):
            await at.desk.domain_add("office.example")
        assert len(await at.domains()) == 1


@asynccontextmanager
async def api(at: Office) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(application(at.desk))
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


async def test_the_api_says_what_is_wrong(tmp_path: Path) -> None:
    """400 for what is malformed, 404 for what is not there, 409 for what is refused; one sentence each."""
    async with office(tmp_path) as at, api(at) as client:
        assert (await client.post("/domains", json={"domain": "office.example"})).status_code == 200
        for method, path, body, code, sentence in (
            ("POST", "/domains", {"domain": "office.example"}, 409, "is a relay domain already"),
            ("POST", "/domains", {"domain": "x"}, 400, "is no domain name"),
            ("POST", "/domains", {"domain": 5}, 400, "must be text"),
            ("POST", "/domains", {}, 400, "the request lacks 'domain'"),
            ("POST", "/domains", [], 400, "the request is no JSON object"),
            ("PATCH", "/domains/office.example", {"admission": "x"}, 400, "must be always or fallback"),
            ("PATCH", "/domains/office.example", {}, 400, "nothing to set"),
            ("PATCH", "/domains/nix.example", {"admission": "always"}, 404, "is no relay domain"),
            ("GET", "/domains/nix.example", None, 404, "is no relay domain"),
            ("DELETE", "/domains/nix.example", None, 404, "is no relay domain"),
            ("GET", "/queue/a/b", None, 404, "there is no mail a/b"),
            ("GET", "/queue?after=x", None, 400, "`after` is not what a page gave"),
            ("GET", "/queue?limit=x", None, 400, "`limit` must be a number"),
            ("GET", "/trace/nix", None, 404, "names a mail nix"),
            ("GET", "/domains/nix.example/recipients", None, 404, "is no relay domain"),
            ("GET", "/domains/office.example/recipients?after=x", None, 400, "`after` must be a number"),
            ("POST", "/domains/office.example/recipients", {}, 400, "the request is malformed"),
            (
                "POST",
                "/domains/office.example/recipients",
                {"verb": "x", "addresses": ["ann@office.example"], "by": "root"},
                400,
                "'x' is nothing that can be said of a recipient",
            ),
        ):
            response = await client.request(method, path, json=body)
            assert (response.status_code, sentence in response.json()["error"]) == (code, True), (
                path,
                response,
            )


async def test_old_answers_say_that_they_are_old(tmp_path: Path) -> None:
    """When the tables have not been at their ends for 10 s, the answer carries `stale`."""
    async with office(tmp_path) as at, api(at) as client:
        assert "stale" not in (await client.get("/domains")).headers
        at.clock.advance(10.5)
        assert "stale" in (await client.get("/domains")).headers


async def test_pages_of_the_api(tmp_path: Path) -> None:
    """`after` of one page is the parameter of the next."""
    async with office(tmp_path) as at, api(at) as client:
        queued = record()
        for number in range(5):
            mail_id = f"mail{number}"
            await at.append("queue", mail_id, queued.value, "office.example", headers=queued.headers)
        await at.until(lambda: len(at.desk._queue.values) == 5)
        seen, after = 0, None
        for _ in range(3):
            page = (
                await client.get("/queue", params={"limit": 2} | ({"after": after} if after else {}))
            ).json()
            seen += len(page["rows"])
            after = f"{page['after'][0]!r},{page['after'][1]}" if page["after"] else None
        assert (seen, after, page["total"]) == (5, None, 5)
