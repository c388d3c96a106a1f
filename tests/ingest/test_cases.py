"""Every case file twice: against the pure session and policy, and over a socket with the running service."""

import asyncio
from pathlib import Path

import pytest
import trustme

from libs.mail.address import mailbox
from libs.mail.event import EventType
from libs.mail.records import Mail
from tests.ingest.cases import FOLDER, BadCase, Case, cases, described
from tests.ingest.house import House, until
from tests.ingest.pure import converse

PATHS = cases()


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


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_case_pure(path: Path) -> None:
    """The case holds for step() and the policy alone."""
    case = Case(path)
    if case.tls or case.proxy:
        return  # the handshake and the header are the shell's: the case runs over a socket
    queued = converse(case)
    assert [lines(mail) for mail, _ in queued] == case.queued
    if case.contents:
        assert [content for _, content in queued] == case.contents


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
async def test_case_over_a_socket(path: Path, tmp_path: Path, authority: trustme.CA) -> None:
    """The case holds for the running service on the embedded log."""
    case = Case(path)
    smtp = dict(case.smtp)
    if case.tls:
        issued = authority.issue_cert("mx1.backup.example")
        smtp["tls_certificate"], smtp["tls_key"] = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued.cert_chain_pems[0].write_to_path(smtp["tls_certificate"])
        issued.private_key_pem.write_to_path(smtp["tls_key"])
    parts = {"smtp": smtp, "timing": case.timing, "defaults": case.defaults}
    proxies = [case.proxies] if case.proxy else []
    zone = "\n".join(case.zone)
    async with House(tmp_path, zone=zone, full=case.full, proxies=proxies, **parts) as house:
        if case.installation is None:
            for domain in case.domains.values():
                await house.put("domains", domain.domain, domain.domain, domain)
        else:
            id_, count = case.installation
            await house.install(*case.domains.values(), count=count, id_=id_)
        for key, (domain, record) in case.recipients.items():
            await house.put("recipients", domain, key, record)
        for domain, state in case.primaries.items():
            await house.put("primaries", domain, domain, state)
        house.answers = {mailbox(name).key: answers for name, answers in case.answers.items()}
        verdict = case.verdict
        house.judge = lambda trace, content: verdict
        await house.start()
        first, *others = case.turns  # a dialogue that the client begins: before the banner can be said
        async with house.client(early=case.proxy + first.sent) as client:
            await client.take([first._replace(sent=b""), *others])
        queued = await house.queued()
        assert sorted(lines(q.mail) for q in queued) == sorted(case.queued)
        if case.contents:
            assert sorted(q.content for q in queued) == sorted(case.contents)
        if case.received:
            for text, mail in zip(case.received, queued, strict=True):
                assert text in mail.mail.prepend.decode().replace("\r\n\t", " ")
        if case.events:
            await until(lambda: len(house.events) >= len(case.events))
            said = [
                f"event {e.type} {e.response.code} {e.recipient}"
                if e.type is EventType.REJECTION and e.response
                else f"event {e.type} {e.recipient}"
                for e in house.events
            ]
            assert sorted(line.strip() for line in said) == sorted(case.events)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# rule\nrelays x\n---\n---\n", "bad.smtp:2: 'relays' is none of: callout dns facts"),
        ("# rule\n---\nX: hello\n---\n", "line 3: 'X: hello' is none of C: C| C< S: S."),
        ("# rule\n---\n---\nqueue x\n", "bad.smtp:4: 'queue' is none of: content event queued"),
        ("# rule\n---\n", "three parts"),
        ("relay x\n---\n---\n", "a comment with the rule"),
    ],
)
def test_a_wrong_case_file_says_where(tmp_path: Path, text: str, wanted: str) -> None:
    """An unknown keyword fails with file, line and the list of keywords."""
    path = tmp_path / "bad.smtp"
    path.write_text(text)
    with pytest.raises(BadCase, match=wanted.replace("|", r"\|").replace(".", r"\.")):
        Case(path)


def test_there_are_cases() -> None:
    """A folder that was emptied by mistake is noticed."""
    assert len(list(FOLDER.glob("*.smtp"))) > 40


def test_the_pure_runner_can_fail(tmp_path: Path) -> None:
    """A case with a wrong reply fails."""
    path = tmp_path / "wrong.smtp"
    path.write_text((FOLDER / "README").read_text().replace("S: 550 5.1.1", "S: 250 2.1.5"))
    with pytest.raises(AssertionError, match="line"):
        converse(Case(path))


async def test_the_socket_runner_can_fail(tmp_path: Path) -> None:
    """A dialogue with a wrong reply fails over a socket, too."""
    case = Case(FOLDER / "README")
    async with House(tmp_path) as house:
        await house.install()
        await house.start()
        async with house.client() as client:
            with pytest.raises(AssertionError, match="line"):
                await client.take(case.turns)
        await asyncio.sleep(0)
