"""A case file against a running ingest: over a socket, on whatever log its house has."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trustme

from libs import topics
from libs.log.contract import Log
from libs.mail.address import mailbox
from libs.mail.codec import decode_request
from libs.mail.event import EventType
from libs.mail.knowledge import Sight
from libs.mail.records import Mail
from services.ingest.sights import hashed, salt
from tests.helpers.clock import Later
from tests.helpers.patience import until
from tests.ingest.cases import Case, described, judged
from tests.ingest.house import House


def lines(mail: Mail) -> str:
    """The `queued` line of a mail."""
    extra = [
        *([f"RET={mail.ret}"] if mail.ret else []),
        *([f"ENVID={mail.envid}"] if mail.envid else []),
        *(["SMTPUTF8"] if mail.smtputf8 else []),
        *(f"NOTIFY={','.join(r.notify)}" for r in mail.recipients if r.notify),
        *(f"ORCPT={r.orcpt}" for r in mail.recipients if r.orcpt),
        *(f"basis={r.basis}" for r in mail.recipients if r.basis != "deliverable"),
    ]
    return described(
        mail.domain, mail.kind, mail.reverse_path, [r.mailbox for r in mail.recipients], " ".join(extra)
    )


def house_of(case: Case, tmp_path: Path, authority: trustme.CA, log: Log | None = None) -> House:
    """The house with the settings of the case; `log` as in House."""
    smtp: dict[str, Any] = dict(case.smtp)
    if case.tls:
        issued = authority.issue_cert("mx1.backup.example")
        smtp["tls_certificate"], smtp["tls_key"] = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued.cert_chain_pems[0].write_to_path(smtp["tls_certificate"])
        issued.private_key_pem.write_to_path(smtp["tls_key"])
    parts = {"smtp": smtp, "timing": case.timing, "defaults": case.defaults}
    proxies = [case.proxies] if case.proxy else []
    zone = "\n".join(case.zone)
    clock = Later(case.later_s)
    return House(tmp_path, zone=zone, full=case.full, proxies=proxies, log=log, clock=clock, **parts)


async def play(case: Case, house: House) -> None:
    """Fill the tables, have the dialogue, look at what came out."""
    await _furnish(case, house)
    await house.start()
    house.log.away = case.away
    first, *others = case.turns  # a dialogue that the client begins: before the banner can be said
    async with AsyncExitStack() as earlier:
        for _ in range(case.before):
            other = await earlier.enter_async_context(house.client(early=case.proxy))
            await other.talk("S: 220 mx1.backup.example ...")
            if case.gone:
                await other.talk("C: QUIT\nS: 221 ...\nS.")
        async with house.client(early=case.proxy + first.sent) as client:
            await client.take([first._replace(sent=b""), *others])
    queued = await house.queued()
    assert sorted(lines(q.mail) for q in queued) == sorted(case.queued)
    if case.contents:
        assert sorted(q.content for q in queued) == sorted(case.contents)
    for name, times in case.limited.items():
        value = house.metrics.registry.get_sample_value("backupmx_limited_total", {"limit": name})
        assert value == times, f"limited {name}: {value}"
    requests = [decode_request(record.value or b"") for record in await house.records("requests")]
    assert sorted(request.domain for request in requests) == sorted(case.requested)
    if case.asked:
        assert sorted(house.asked) == sorted(case.asked)
    traces = [queue.mail.prepend.decode().replace("\r\n\t", " ") for queue in queued]
    for text in case.received:
        assert any(text in trace for trace in traces), f"{text!r} is not in {traces}"
    if case.judged:
        assert sorted(judged(trace) for trace, _ in house.judged) == sorted(case.judged)
    if case.events:
        await until(lambda: len(house.events) >= len(case.events))
        said = [
            f"event {e.type} {e.response.code} {e.recipient}"
            if e.type is EventType.REJECTION and e.response
            else f"event {e.type} {e.recipient}"
            for e in house.events
        ]
        assert sorted(line.strip() for line in said) == sorted(case.events)


async def _furnish(case: Case, house: House) -> None:
    if case.installation is None:
        for domain in case.domains.values():
            await house.put("domains", domain.domain, domain.domain, domain)
    else:
        id_, count = case.installation
        await house.install(*case.domains.values(), count=count, id_=id_)
    for key, (domain_, record) in case.recipients.items():
        await house.put("recipients", domain_, key, record)
    for each in case.access:
        await house.permit(each)
    for name, state in case.primaries.items():
        await house.put("primaries", name, name, state)
    for client, sender, key in case.sights:
        who = hashed(salt(house.installation), client, sender, key)
        await house.put("callouts", key.rpartition("@")[2], (topics.SIGHT + who).decode(), Sight("mx2"))
    house.answers = {mailbox(name).key: answers for name, answers in case.answers.items()}
    verdict = case.verdict
    house.judge = lambda trace, content: verdict
