"""The running service on the embedded log: what a dialogue in a file cannot show."""

import asyncio
import re
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest
import trustme
from msgspec import structs

from libs.log.contract import Ambiguous, NotStored
from libs.mail import replies
from libs.mail.event import EventType
from libs.mail.knowledge import RecipientStatus, RecipientTry, Status
from libs.mail.records import Action, Basis, Domain, Overrides, Verdict
from libs.runtime.config import LogPart
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.ingest.house import HOST, House

OFFICE = Domain("office.example", 1.0, active_since=2.0)
ANN = "ann@office.example"
UNREAD = Verdict("", Action.ACCEPT, b"", may_notify=False, unread=True)


def deliverable(mailbox: str) -> RecipientStatus:
    return RecipientStatus(mailbox, Status.DELIVERABLE, 1.0, 1.0)


async def opened(house: House) -> House:
    """With office.example and ann, ready."""
    await house.install(OFFICE)
    await house.put("recipients", "office.example", ANN, deliverable(ANN))
    return await house.start()


async def test_a_mail_becomes_a_queue_record(tmp_path: Path) -> None:
    """A mail that got 250 is in the queue, its content octet for octet as sent, with our fields on top."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            content = b"Subject: hi\r\n\r\n.dot\r\n..\r\n\xe4\r\n"
            reply = await client.mail(ANN, content=content)
        [queued] = await house.queued()
        mail = queued.mail
        assert reply == f"250 2.0.0 Ok: queued as {mail.id}"
        assert queued.content == content
        assert mail.prepend.startswith(b"Received: from client.sender.example ([127.0.0.1])")
        assert b"with ESMTP" in mail.prepend
        assert f"for <{ANN}>".encode() in mail.prepend
        assert mail.prepend.endswith(b"\r\nAuthentication-Results: mx1.backup.example; none\r\n")
        assert (mail.client, mail.helo, mail.tls, mail.may_notify) == (
            "127.0.0.1", "client.sender.example", "", True
        )  # fmt: skip
        [(trace, judged)] = house.judged
        assert judged == content
        assert (trace.client, trace.helo, trace.reverse_path, trace.domain, trace.chunks) == (
            "127.0.0.1", "client.sender.example", "eve@sender.example", "office.example", 1
        )  # fmt: skip
        await until(lambda: house.events)
        [event] = house.events
        assert (event.type, event.id, event.size, event.recipient) == (
            EventType.RECEPTION, mail.id, len(content), ANN
        )  # fmt: skip
        assert house.accepted() == 1


# --- TLS ---


def certified(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    issued = authority.issue_cert(HOST)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(certificate, append=number > 0)
    issued.private_key_pem.write_to_path(key)
    return {"tls_certificate": certificate, "tls_key": key}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_starttls(tmp_path: Path, authority: trustme.CA) -> None:
    """RFC 3207: STARTTLS is offered in clear only, the session starts anew, the mail says how it came."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        async with house.client() as client:
            assert await client.reply()
            await client.send(b"EHLO client.sender.example\r\n")
            assert "STARTTLS" in await client.reply()
            await client.send(f"MAIL FROM:<eve@sender.example>\r\nRCPT TO:<{ANN}>\r\n".encode())
            assert [(await client.reply())[:3] for _ in range(2)] == ["250", "250"]
            await client.start_tls(trusting(authority))
            await client.talk(f"C: RCPT TO:<{ANN}>\nS: 503 5.5.1 ...\nC: MAIL FROM:<a@b.example>\nS: 503 ...")
            await client.send(b"EHLO client.sender.example\r\n")
            assert "STARTTLS" not in await client.reply()
            await client.talk("C: STARTTLS\nS: 503 5.5.1 TLS already active")
            assert (await client.mail(ANN)).startswith("250 ")
        [queued] = await house.queued()
        assert queued.mail.tls.startswith("TLSv1.3 TLS_")
        assert b"with ESMTPS" in queued.mail.prepend


async def test_plaintext_behind_starttls_is_discarded(tmp_path: Path, authority: trustme.CA) -> None:
    """RFC 3207 4.2: what came in clear behind STARTTLS is never read as if it had come over TLS."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@sender.example>\r\n")
            assert (await client.reply()).startswith("220 ")
            await client._writer.start_tls(trusting(authority), server_hostname=HOST)
            await client.talk(f"C: RCPT TO:<{ANN}>\nS: 503 5.5.1 Send MAIL first")


async def test_a_failed_handshake_ends_the_connection(tmp_path: Path, authority: trustme.CA) -> None:
    """A client that does not speak TLS after STARTTLS is disconnected; others are served."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.send(b"STARTTLS\r\n")
            assert (await client.reply()).startswith("220 ")
            await client.send(b"NOOP\r\n" * 100)
            while await client.line() is not None:
                pass
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250 ")
        assert house.metrics.session_errors._value.get() == 0


# --- recipients ---


async def test_one_question_for_many_sessions(tmp_path: Path) -> None:
    """However many sessions want to know of a recipient, one callout is published and all get its answer."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 10}) as house:
        await opened(house)

        async def one() -> str:
            async with house.client() as client:
                await client.greet()
                return await client.mail("new@office.example")

        sessions = [asyncio.create_task(one()) for _ in range(8)]
        await until(lambda: house.asked)
        await until(lambda: house.metrics.sessions_open._value.get() == 8)
        await house.put(
            "recipients", "office.example", "new@office.example", deliverable("new@office.example")
        )
        assert all(reply.startswith("250 ") for reply in await asyncio.gather(*sessions))
        assert house.asked == ["new@office.example"]
        assert {q.mail.recipients[0].basis for q in await house.queued()} == {Basis.DELIVERABLE}


async def test_pipelined_recipients_are_asked_at_once(tmp_path: Path) -> None:
    """All unknown recipients that the client has sent ahead are asked about before the first is answered."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 10}) as house:
        await opened(house)
        names = [f"new{number}@office.example" for number in range(5)]
        async with house.client() as client:
            await client.greet()
            commands = "".join(f"RCPT TO:<{name}>\r\n" for name in [*names, names[0]])
            await client.send(f"MAIL FROM:<eve@sender.example>\r\n{commands}DATA\r\n".encode())
            assert (await client.reply()).startswith("250 2.1.0")
            await until(lambda: len(house.asked) == 5)
            assert sorted(house.asked) == names
            for name in names:
                await house.put("recipients", "office.example", name, deliverable(name))
            for _ in range(6):
                assert (await client.reply()).startswith("250 2.1.5")
            assert (await client.reply()).startswith("354 ")
        assert len(house.asked) == 5


async def test_replies_leave_together(tmp_path: Path) -> None:
    """RFC 2920 3.2: the replies to commands that came together leave in one write: in one segment of TCP."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            sock = client._writer.get_extra_info("socket")

            def segments() -> int:
                """Those with data that came in so far (tcpi_data_segs_in of Linux)."""
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                return int(struct.unpack_from("I", info, 152)[0])

            for last, code in (("RSET", "250"), ("DATA", "354")):
                before = segments()
                commands = (  # nothing is to be looked up for them: replies that are there wait for no DNS
                    f"MAIL FROM:<>\r\nRCPT TO:<{ANN}>\r\nRCPT TO:<{ANN}>\r\n{last}\r\n"
                )
                await client.send(commands.encode())
                assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "250", code]
                assert segments() - before == 1


async def test_patience_ends(tmp_path: Path) -> None:
    """When verify says nothing about a domain, the fourth recipient is neither asked about nor awaited."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.05}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            for number in range(6):
                assert (await client.mail(f"new{number}@office.example")).startswith("250 ")
        assert len(house.asked) == 3
        assert {q.mail.recipients[0].basis for q in await house.queued()} == {Basis.SUSPICION}


NEAR = Domain("home.example", 1.0, active_since=2.0)  # in the partition of office.example, of three
FAR = Domain("club.example", 1.0, active_since=2.0)  # in another


async def test_silence_about_one_domain_is_silence_about_its_partition(tmp_path: Path) -> None:
    """Three questions in vain about one domain are enough for all that the same verify answers for, until it
    is heard of again, be it about something else."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.05}) as house:
        assert house.partition("home.example") == house.partition("office.example")
        assert house.partition("club.example") != house.partition("office.example")
        await house.install(OFFICE, NEAR, FAR)
        await house.start()
        async with house.client() as client:
            await client.greet()
            for number in range(3):
                assert (await client.mail(f"new{number}@office.example")).startswith("250 ")
            assert (await client.mail("new@home.example")).startswith("250 ")
            assert len(house.asked) == 3
            assert (await client.mail("new@club.example")).startswith("250 ")
            assert house.asked[3:] == ["new@club.example"]
            await house.put("recipients", "office.example", ANN, deliverable(ANN))
            await client.mail(ANN)

            async def asked_again() -> bool:
                await client.mail("another@home.example")
                return house.asked[4:] == ["another@home.example"]

            await until(asked_again)


async def test_a_slow_primary_says_nothing_of_verify(tmp_path: Path) -> None:
    """Where verify writes about others meanwhile, the silence is that of one domain's primary."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.5}) as house:
        await house.install(OFFICE, NEAR)
        await house.start()
        async with house.client() as client:
            await client.greet()
            for number in range(4):
                waiting = asyncio.create_task(client.mail(f"new{number}@office.example"))
                await until(lambda number=number: len(house.asked) == min(number + 1, 3))
                await house.put("recipients", "home.example", "x@home.example", deliverable("x@home.example"))
                assert (await waiting).startswith("250 ")
            assert len(house.asked) == 3
            assert (await client.mail("new@home.example")).startswith("250 ")
            assert house.asked[3:] == ["new@home.example"]


async def test_no_size_is_refused_by_a_table_that_lacks_domains(tmp_path: Path) -> None:
    """Rule 7: a mail that is too large for all domains that are left may be for one that is missing: 451. So
    is one that is too large for its domain, as far as that table knows."""
    large = Domain("large.example", 1.0, active_since=2.0, overrides=Overrides(max_size=80 * 2**20))
    async with House(tmp_path) as house:
        await house.install(OFFICE, large)
        await house.put("recipients", "office.example", ANN, deliverable(ANN))
        await house.start()
        dialogue = """
            C: MAIL FROM:<eve@sender.example> SIZE={size}
            S: {at_mail} ...
            C: RCPT TO:<{to}>
            S: {at_rcpt} ...
            C: RSET
            S: 250 ...
        """

        async def advertised() -> int:
            async with house.client() as client:
                assert (await client.reply()).startswith("220 ")
                await client.send(b"EHLO client.sender.example\r\n")
                (size,) = re.findall(r"SIZE (\d+)", await client.reply())
                return int(size)

        assert await advertised() == 80 * 2**20
        async with house.client() as client:
            await client.greet()
            asks = dialogue.format(size=60 * 2**20, to=ANN, at_mail="250 2.1.0", at_rcpt="552 5.3.4")
            await client.talk(asks)
            await client.send(f"MAIL FROM:<eve@sender.example> SIZE={81 * 2**20}\r\n".encode())
            assert (await client.reply()).startswith("552 5.3.4")
            await house.put("domains", "large.example", "large.example", None)

            async def unknown() -> bool:
                return await advertised() == 0  # RFC 1870 section 4: no fixed maximum

            await until(unknown)
            for to in ("bob@large.example", ANN):
                for size in (60, 81):
                    await client.talk(
                        dialogue.format(size=size * 2**20, to=to, at_mail="250 2.1.0", at_rcpt="451 4.3.2")
                    )
        for size in (90, 70):  # it is back, and takes more or less than it did
            changed = structs.replace(large, overrides=Overrides(max_size=size * 2**20))
            await house.put("domains", "large.example", "large.example", changed)

            async def known(size: int = size) -> bool:
                return await advertised() == size * 2**20

            await until(known)


async def test_no_denial_by_a_table_of_domains_that_is_stale(tmp_path: Path) -> None:
    """Rule 7: what is known of recipients is fresh, whose domain it is is not: nothing permanent."""
    async with House(tmp_path, timing={"rcpt_deadline_s": 0.05}) as house:
        await house.install(OFFICE)
        gone = RecipientStatus("gone@office.example", Status.UNDELIVERABLE, time.time(), time.time())
        await house.put("recipients", "office.example", gone.mailbox, gone)
        await house.start()
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(gone.mailbox)).startswith("550 5.1.1")
            await house.install(OFFICE, count=2)  # one domain more than there are

            async def not_denied() -> bool:
                return not (await client.mail(gone.mailbox)).startswith("550")

            await until(not_denied)
            assert (await client.mail(gone.mailbox))[:3] in ("250", "451")


async def test_the_budget_of_suspicion(tmp_path: Path) -> None:
    """A client gets 20 unverified recipients an hour, the next is 451 4.7.1; a known one is never touched."""
    async with House(tmp_path, smtp={"exempt_networks": []}) as house:
        await opened(house)
        for number in range(22):
            name = f"new{number}@office.example"
            house.answers[name] = [(f"try:{name}", RecipientTry(name, house.clock.wall(), "connect"))]
        async with house.client() as client:
            await client.greet()
            await client.send(b"MAIL FROM:<eve@sender.example>\r\n")
            assert await client.reply()
            for number in range(22):
                await client.send(f"RCPT TO:<new{number}@office.example>\r\n".encode())
                reply = await client.reply()
                assert reply.startswith("250 2.1.5" if number < 20 else "451 4.7.1"), number
            await client.talk(
                f"C: RCPT TO:<{ANN}>\nS: 250 2.1.5 ...\nC: RCPT TO:<new3@office.example>\nS: 250 ..."
            )


async def test_a_hundred_recipients(tmp_path: Path) -> None:
    """RFC 5321 4.5.3.1.8: a hundred recipients are taken, one more is 452 4.5.3."""
    async with House(tmp_path) as house:
        await house.install(OFFICE)
        for number in range(101):
            name = f"r{number}@office.example"
            await house.put("recipients", "office.example", name, deliverable(name))
        await house.start()
        async with house.client() as client:
            await client.greet()
            commands = "".join(f"RCPT TO:<r{number}@office.example>\r\n" for number in range(101))
            await client.send(f"MAIL FROM:<eve@sender.example>\r\n{commands}".encode())
            replies = [await client.reply() for _ in range(102)]
            assert all(reply.startswith("250 ") for reply in replies[:101])
            assert replies[101].startswith("452 4.5.3")
            await client.send(b"DATA\r\n")
            assert await client.reply()
            await client.send(b"hello\r\n.\r\n")
            assert (await client.reply()).startswith("250 2.0.0")
        [queued] = await house.queued()
        assert len(queued.mail.recipients) == 100
        assert b"for <" not in queued.mail.prepend


async def test_stale_tables_refuse_nobody(tmp_path: Path) -> None:
    """Rule 7: without fresh tables there is no 550, neither for a domain nor for a recipient."""
    clock = Clock()
    async with House(tmp_path, clock=clock) as house:
        await house.install(OFFICE)
        gone = RecipientStatus("bob@office.example", Status.UNDELIVERABLE, clock.wall(), clock.wall())
        await house.put("recipients", "office.example", "bob@office.example", gone)
        await house.start()
        async with house.client() as client:
            await client.greet()
            await client.talk(
                """C: MAIL FROM:<eve@sender.example>
                S: 250 ...
                C: RCPT TO:<bob@office.example>
                S: 550 5.1.1 ..."""
            )
            house.log.silent = True
            clock.advance(11)
            await client.talk(
                """C: RCPT TO:<kim@other.example>
                S: 451 4.3.2 ...
                C: RCPT TO:<bob@office.example>
                S: 250 2.1.5 ..."""
            )
            house.log.silent = False


async def test_an_unreadable_record_is_stepped_over(tmp_path: Path) -> None:
    """Rule 8: a record that cannot be decoded is counted, what was known stays, others go on."""
    async with House(tmp_path) as house:
        await house.install(OFFICE)
        await house.put("recipients", "office.example", ANN, deliverable(ANN))
        await house.log.append(
            "recipients", house.partition("office.example"), ANN.encode(), b"\xc1", within=5
        )
        await house.log.append("primaries", 0, b"office.example", b"junk", within=PATIENCE_S)
        await house.start()
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250 ")
        assert house.metrics.quarantined.labels("recipients")._value.get() == 1
        assert house.metrics.quarantined.labels("primaries")._value.get() == 1


# --- content ---


async def test_a_large_mail_comes_in_chunks(tmp_path: Path) -> None:
    """Chunks are at most 960 kB and in order; the content is the same octet for octet."""
    async with House(tmp_path) as house:
        await opened(house)
        content = b"".join(b".%07d\r\n" % number for number in range(500_000))
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=content)).startswith("250 ")
        [queued] = await house.queued()
        assert queued.content == content
        sizes = [size for topic, size in house.log.appended if topic == "content"]
        assert len(sizes) > 5
        assert max(sizes) <= 960_000
        assert house.held() == 0


async def test_too_large_at_data(tmp_path: Path) -> None:
    """RFC 1870 6.3: what turns out too large is read to its end with little memory, then 552 5.3.4."""
    async with House(tmp_path, defaults={"max_size": 65536}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            reply = await client.mail(ANN, content=b"x" * 3_000_000)
            assert reply.startswith("552 5.3.4")
            assert (await client.mail(ANN, content=b"x" * 60_000)).startswith("250 ")
        assert len(await house.queued()) == 1
        assert sum(size for topic, size in house.log.appended if topic == "content") < 200_000
        assert house.held() == 0


async def test_a_slow_log_stops_the_sender(tmp_path: Path) -> None:
    """Rule 13: while chunks are not acknowledged the socket is not read; memory does not grow."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.hold["content"] = asyncio.Event()
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            block = b"y" * 998 + b"\r\n"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.send(block * 40_000), 1)
            assert house.held() < 3_000_000
            house.log.hold["content"].set()
            await client.send(b".\r\n")
            assert (await client.reply()).startswith("250 2.0.0")
        [queued] = await house.queued()
        assert queued.content == block * 40_000


async def test_a_client_that_goes_in_data(tmp_path: Path) -> None:
    """A connection lost before the final dot leaves no mail, an abort chunk ends what verify assembles."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            await client.send(b"z" * 1_500_000)
            await until(lambda: any(topic == "content" for topic, _ in house.log.appended))
            client.abort()
        await until(lambda: house.aborted)
        assert await house.queued() == []
        await until(lambda: not house.metrics.sessions_open._value.get())
        assert house.held() == 0


async def test_a_client_that_goes_after_the_dot(tmp_path: Path) -> None:
    """A connection lost right after the final dot changes nothing: the mail is committed."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.hold["content"] = asyncio.Event()
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            await client.send(b"hello\r\n.\r\n")
            await until(lambda: ("content", 7) in house.log.appended)
            client.abort()
        house.log.hold["content"].set()
        await until(lambda: house.accepted() == 1)
        assert [q.content for q in await house.queued()] == [b"hello\r\n"]


# --- trouble of ours ---


async def test_no_verdict(tmp_path: Path) -> None:
    """Without a verdict a mail is accepted with temperror, nobody may be notified, forged results are cut
    out; after three time-outs nobody waits any more."""
    async with House(tmp_path, timing={"verdict_deadline_s": 0.1}) as house:
        await opened(house)
        house.judge = lambda trace, content: None
        forged = b"Authentication-Results: mx2.backup.example; spf=pass\r\n"
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=b"A: b\r\n" + forged + b"\r\nhi\r\n")).startswith("250 ")
            assert (await client.mail(ANN)).startswith("250 ")
            assert (await client.mail(ANN)).startswith("250 ")
            house.deps.config.timing.__dict__["verdict_deadline_s"] = 1000.0
            assert (await client.mail(ANN)).startswith("250 ")  # patience is over
        mail = next(q.mail for q in await house.queued() if forged in q.content)
        assert b"spf=temperror" in mail.prepend
        assert b"dkim=temperror" in mail.prepend
        assert b"dmarc=temperror" in mail.prepend
        assert not mail.may_notify
        assert mail.strip == ((6, 6 + len(forged)),)
        assert house.metrics.unverdicted._value.get() == 4


async def test_forged_results_of_a_content_that_verify_could_not_read(tmp_path: Path) -> None:
    """RFC 8601 section 5: a verdict on a content that did not come together names nothing to cut out, but the
    header is here, and what it forges goes all the same."""
    forged = b"Authentication-Results: mx2.backup.example; spf=pass\r\n"
    async with House(tmp_path) as house:
        await opened(house)
        house.judge = lambda trace, content: UNREAD
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=b"A: b\r\n" + forged + b"\r\nhi\r\n")).startswith("250 ")
        (queued,) = await house.queued()
        assert queued.mail.strip == ((6, 6 + len(forged)),)


async def test_what_verify_has_read_is_not_looked_at_again(tmp_path: Path) -> None:
    """The word of verify stands: that it names nothing costs nobody a second look at each mail."""
    forged = b"Authentication-Results: mx2.backup.example; spf=pass\r\n"
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=forged + b"\r\nhi\r\n")).startswith("250 ")
        (queued,) = await house.queued()
        assert queued.mail.strip == ()


@pytest.mark.parametrize("verdict", [None, UNREAD])
async def test_a_header_that_nobody_has_read_to_its_end(tmp_path: Path, verdict: Verdict | None) -> None:
    """RFC 8601 section 5: where verify is away, or could not read it, and it is longer than what is looked at
    here and has results behind that, they may be forged: it may come again. What verify has read is taken."""
    long = (
        b"A: " + b"b" * 128 * 1024 + b"\r\nAuthentication-Results: mx2.backup.example; spf=pass\r\n\r\nhi\r\n"
    )
    async with House(tmp_path, timing={"verdict_deadline_s": 0.1}) as house:
        await opened(house)
        judge, house.judge = house.judge, lambda trace, content: verdict
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=long.replace(b"Auth", b"X-Auth"))).startswith("250 ")
            assert await client.mail(ANN, content=long) == replies.HEADER_UNREAD.wire().decode().strip()
            house.judge = judge
            house.deps.config.timing.__dict__["verdict_deadline_s"] = 1000.0
            assert (await client.mail(ANN, content=long)).startswith("250 ")
        assert len(await house.queued()) == 2


@pytest.mark.parametrize("error", [Ambiguous("time-out"), NotStored("full")])
async def test_a_commit_that_fails(tmp_path: Path, error: Exception) -> None:
    """Rule 2: no acknowledgement of the queue record is 451 and the partition rests for 5 s; a record that
    may appear gets a tombstone, one that certainly does not gets none."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.after = isinstance(error, Ambiguous)
        house.log.fail["queue"].append(error)
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("451 4.3.0")
            await client.talk(
                f"C: MAIL FROM:<eve@sender.example>\nS: 250 ...\nC: RCPT TO:<{ANN}>\nS: 451 4.3.0 ..."
            )
        await house.stop()
        assert await house.queued() == []
        assert len(house.log.tombstones) == isinstance(error, Ambiguous)
        assert house.accepted() == 0


async def test_content_that_is_not_stored(tmp_path: Path) -> None:
    """A mail with a failed chunk is dead: 451 after the dot, and no queue record."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.fail["content"].extend([None, NotStored("full")])
        async with house.client() as client:
            await client.greet()
            assert (await client.mail(ANN, content=b"x" * 3_000_000)).startswith("451 4.3.0")
        await until(lambda: house.aborted)
        assert await house.queued() == []
        assert house.held() == 0


async def test_an_exception_of_ours(tmp_path: Path) -> None:
    """Any exception of ours is 451 4.3.0 without its name, and the transaction is reset."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.fail["content"].append(RuntimeError("a bug"))
        async with house.client() as client:
            await client.greet()
            assert await client.mail(ANN) == "451 4.3.0 Local error, try again later"
            assert (await client.mail(ANN)).startswith("250 ")
        assert house.metrics.session_errors._value.get() == 1
        assert house.held() == 0


async def test_a_question_that_cannot_be_asked(tmp_path: Path) -> None:
    """When the log takes no question the recipient is 451, not accepted blindly."""
    async with House(tmp_path) as house:
        await opened(house)
        house.log.fail["callouts"].append(NotStored("away"))
        async with house.client() as client:
            await client.greet()
            assert (await client.mail("new@office.example")).startswith("451 4.3.0")


async def test_no_log_at_start(tmp_path: Path) -> None:
    """With the log out of reach at start nothing listens, and the process can be ended."""
    async with House(tmp_path) as house:
        house.log.silent = True
        house.service = asyncio.create_task(house.run())
        await until(lambda: house.life.stalled_s < 0.5)
        with pytest.raises(OSError, match="refused"):
            async with house.client():
                pass
        assert not house.life.is_ready.is_set()
        await house.stop()


# --- limits and the end ---


async def test_too_many_connections(tmp_path: Path) -> None:
    """One client network gets so many connections, then 421 4.7.0; a place that is free again can be had."""
    async with House(tmp_path, smtp={"max_connections_per_client": 2, "exempt_networks": []}) as house:
        await opened(house)
        async with house.client() as one, house.client() as two:
            assert (await one.reply()).startswith("220 ")
            assert (await two.reply()).startswith("220 ")
            async with house.client() as three:
                await three.talk("S: 421 4.7.0 mx1.backup.example Too many connections from your network\nS.")
            await one.talk("C: QUIT\nS: 221 ...\nS.")
            await until(lambda: house.metrics.sessions_open._value.get() == 1)
            async with house.client() as four:
                assert (await four.reply()).startswith("220 ")


@pytest.mark.parametrize(("share", "reply"), [(0.89, "452 4.3.1"), (0.91, "250 2.1.0")])
async def test_the_spool_quota_is_a_setting(tmp_path: Path, share: float, reply: str) -> None:
    """Rule 13: the log's disk is 90 % full; log.max_disk_share says whether that is too much."""
    async with House(tmp_path, full=True) as house:
        part = LogPart(max_disk_share=share)
        house.deps = house.deps._replace(config=house.config.model_copy(update={"log": part}))
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.talk(f"C: MAIL FROM:<eve@sender.example>\nS: {reply} ...")


async def test_timeouts(tmp_path: Path) -> None:
    """RFC 5321 4.5.3.2: silence between commands and in DATA ends in 421 4.4.2."""
    async with House(tmp_path, smtp={"command_timeout_s": 0.3, "data_timeout_s": 0.2}) as house:
        await opened(house)
        async with house.client() as client:
            assert (await client.reply()).startswith("220 ")
            await client.talk("S: 421 4.4.2 ...\nS.")
        async with house.client() as client:
            await client.greet()
            await client.data(ANN)
            await client.send(b"hello\r\n")
            await client.talk("S: 421 4.4.2 ...\nS.")


async def test_a_client_that_reads_nothing(tmp_path: Path) -> None:
    """A client that sends commands and never reads our replies is cut off."""
    async with House(tmp_path, smtp={"command_timeout_s": 0.5}) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            client._writer.transport.pause_reading()
            with pytest.raises(ConnectionError):
                await client.send(b"HELP\r\n" * 2_000_000)
        await until(lambda: not house.metrics.sessions_open._value.get())


async def test_a_reset_connection(tmp_path: Path) -> None:
    """A client that resets the connection leaves no trace but a freed place."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            sock = client._writer.get_extra_info("socket")
            sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close sends RST
            client.abort()
        await until(lambda: not house.metrics.sessions_open._value.get())
        assert house.metrics.session_errors._value.get() == 0


async def test_a_client_that_closes_its_half(tmp_path: Path) -> None:
    """A client that has said all it wants and closes its half still gets every reply."""
    async with House(tmp_path) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.send(b"NOOP\r\nNOOP\r\n")
            client._writer.write_eof()
            assert [await client.line(), await client.line(), await client.line()] == [
                "250 2.0.0 Ok", "250 2.0.0 Ok", None
            ]  # fmt: skip
