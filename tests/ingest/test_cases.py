"""Every case file against the pure session and policy, and over a socket with the running service.

test_cases_kafka.py does the same on the other log.
"""

import asyncio
from pathlib import Path

import pytest
import trustme

from libs.mail import replies
from libs.mail.reply import Reply
from tests.ingest.cases import FOLDER, BadCase, Case, cases
from tests.ingest.house import House
from tests.ingest.play import house_of, lines, play
from tests.ingest.pure import converse

PATHS = cases()


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_case_pure(path: Path) -> None:
    """The case holds for step() and the policy alone."""
    case = Case(path)
    if case.tls or case.socket or (case.proxy and case.client == "127.0.0.1"):
        return  # handshake, clock and PROXY header are the shell's: the case runs over a socket
    queued = converse(case)
    assert [lines(mail) for mail, _ in queued] == case.queued
    if case.contents:
        assert [content for _, content in queued] == case.contents


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
async def test_case_over_a_socket(path: Path, tmp_path: Path, authority: trustme.CA) -> None:
    """The case holds for the running service on the embedded log."""
    case = Case(path)
    async with house_of(case, tmp_path, authority) as house:
        await play(case, house)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "# rule\nrelays x\n---\n---\n",
            "bad.smtp:2: 'relays' is none of: access away before callout client",
        ),
        ("# rule\n---\nX: hello\n---\n", "line 3: 'X: hello' is none of C: C| C< S: S."),
        ("# rule\n---\n---\nqueue x\n", "bad.smtp:4: 'queue' is none of: asked content event judged limited"),
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
    assert len(list(FOLDER.glob("*.smtp"))) >= 130


# What no dialogue of a case file can bring about, and who does.
ELSEWHERE = {
    "DMARC_FAILED": "a word of verify: tests/path/test_enforce.py",
    "SPF_FAILED": "a word of verify: tests/path/test_enforce.py",
    "READY_FOR_TLS": "a handshake follows: test_service.py",
    "TLS_ALREADY": "it is said inside TLS: test_service.py",
    "OUR_FAULT": "a bug of ours: test_service.py",
    "HEADER_UNREAD": "results behind 128 kB of header: test_service.py",
    "TOO_MANY_FLUSHES": "many sessions: test_etrn.py",
    "ROUTING_LOOP": "many mails: test_loops.py",
}


def test_every_reply_is_said_in_some_dialogue() -> None:
    """Each reply of replies.py is shown where a reader looks: word for word, or by a beginning that no other
    one has."""
    shown = {
        line.removesuffix("...").rstrip()
        for path in PATHS
        for turn in Case(path).turns
        for line in turn.expected
        if line is not None
    }
    ours = {name: reply for name, reply in vars(replies).items() if isinstance(reply, Reply)}
    texts = {name: reply.wire().decode().strip() for name, reply in ours.items()}

    def is_shown(text: str) -> bool:
        beginnings = {line for line in shown if text.startswith(line)}
        others = set(texts.values()) - {text}
        return text in shown or any(not any(o.startswith(b) for o in others) for b in beginnings)

    assert {name for name, text in texts.items() if not is_shown(text)} - ELSEWHERE.keys() == set()
    assert ELSEWHERE.keys() <= texts.keys()


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
