"""Case files: a mail and the replies of its next hop; what is done, who is told, and the notice's octets.

The format is explained by cases/README.case, which runs as a case too. A case with a `dsn` line has its
notice beside it as .eml; `GOLDEN=1 pytest tests/deliver/test_cases.py` writes those again.
"""

import email
import email.policy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from libs.mail.codec import encode, new_entry
from libs.mail.records import Basis, Cause, ContentRef, Kind, Language, Mail, Progress, Recipient, State
from libs.mail.reply import Foreign, parse_line
from libs.mail.speaks import Stage
from libs.mail.states import move, open_recipients
from services.deliver import brake, dsn
from services.deliver.notices import report
from services.deliver.notify import Notice, Plan, delayed, plan, relayed
from services.deliver.outcome import (
    Done,
    Failed,
    Known,
    Outcome,
    Retry,
    broken_off,
    outcome,
    seen,
    settle,
)
from services.deliver.outgoing import Answers, Job, Replies, answers, envelope

CASES = Path(__file__).parent / "cases"
NOW = 1_800_000_000.0
HEADER = b"From: Eve <eve@sender.example>\r\nSubject: a mail\r\nMessage-ID: <1@sender.example>\r\n"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
GIVEN = (
    "mail notify orcpt envid kind suspicion unauthenticated deferred-since attempts last-reply refusing "
    "braked accepted-lately oversize smtputf8 header expired given-up delayed delay-told offers-dsn language"
).split()
SAID = [stage.value for stage in Stage]
WANTED = "done failed retry relayed delayed dsn silent dropped parked state destination".split()


class Case(NamedTuple):
    name: str
    given: list[tuple[int, str, str]]
    said: list[tuple[int, str, str]]
    wanted: list[str]


def read(path: Path) -> Case:
    """Raises ValueError with file, line and the known words."""
    parts: list[list[tuple[int, str, str]]] = [[]]
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line == "---":
            parts.append([])
        elif line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            known = (GIVEN, SAID, WANTED)[len(parts) - 1]
            if word not in known:
                raise ValueError(f"{path.name}:{number}: {word!r}; known are {', '.join(known)}")
            parts[-1].append((number, word, rest.strip()))
    given, said, wanted = parts
    return Case(path.stem, given, said, [f"{word} {rest}".strip() for _, word, rest in wanted])


def seconds(text: str) -> float:
    return float(text[:-1]) * UNITS[text[-1]]


def mail_of_case(words: Mapping[str, list[str]]) -> Mail:
    sender, _, names = words["mail"][0].removeprefix("from ").partition(" to ")
    notify = dict(line.split(" ") for line in words.get("notify", ()))
    orcpt = dict(line.split(" ") for line in words.get("orcpt", ()))
    suspicion = words.get("suspicion", ())
    recipients = tuple(
        Recipient(
            name,
            Basis.SUSPICION if name in suspicion else Basis.DELIVERABLE,
            tuple(notify[name].split(",")) if name in notify else (),
            orcpt.get(name, ""),
        )
        for name in names.split()
    )
    return Mail(
        id="mail000001",
        domain="office.example",
        next_hop="office.example",
        kind=Kind(words.get("kind", ["relayed"])[0]),
        reverse_path=sender.strip("<>"),
        recipients=recipients,
        prepend=b"",
        arrived=NOW - 86400.0,
        may_notify="unauthenticated" not in words,
        envid=words.get("envid", [""])[0],
        smtputf8="smtputf8" in words,
        helo="client.sender.example",
    )


def progress_of_case(words: Mapping[str, list[str]]) -> Progress:
    attempts = int(words.get("attempts", ["0"])[0])
    if "deferred-since" in words:
        since = NOW - seconds(words["deferred-since"][0])
        last = words.get("last-reply", ["450 4.2.0 later"])[0]
        return Progress(State.DEFERRED, attempts, NOW - 1, since=since, last_reply=last)
    return Progress(attempts=attempts, since=NOW - 86400.0, delay_told="delay-told" in words)


def answers_of_case(case: Case, mail: Mail, open_: tuple[int, ...]) -> Answers:
    """The lines `RCPT address: reply`, `MAIL: reply` ...; a reply `!reason` is a lost connection. What is
    not said is 250."""
    said = {(word, rest.partition(": ")[0] if word == "RCPT" else ""): rest for _, word, rest in case.said}
    for (stage, _), rest in said.items():
        if rest.rpartition(": ")[2].startswith("!"):
            return dict.fromkeys(open_, broken_off(stage, None, rest.rpartition("!")[2]))

    def reply(stage: str, recipient: str, usual: str) -> Foreign:
        line = said.get((stage, recipient))
        if line is None:
            return parse_line(usual)
        return parse_line(line.partition(": ")[2] if stage == "RCPT" else line)

    if connect := next((s for s in ("BANNER", "EHLO") if (s, "") in said), None):
        return dict.fromkeys(open_, (connect, reply(connect, "", "")))
    replies = Replies(
        reply("MAIL", "", "250 2.1.0 ok"),
        [reply("RCPT", mail.recipients[index].mailbox, "250 2.1.5 ok") for index in open_],
        reply("DATA", "", "354 go"),
        reply("DOT", "", "250 2.0.0 taken"),
    )
    if replies.data and replies.data.code != 354:
        replies = Replies(replies.mail, replies.recipients, replies.data, None)
    return answers(open_, replies, oversize="oversize" in {word for _, word, _ in case.given})


def result(
    mail: Mail, each: Mapping[int, Outcome], before: Progress, after: Progress, steps: Plan
) -> Iterator[str]:
    """The lines of the third part."""
    names = [recipient.mailbox for recipient in mail.recipients]
    for index, got in sorted(each.items()):
        match got:
            case Done():
                yield f"done {names[index]}"
            case Failed(_, why, _):
                yield f"failed {names[index]} {why}"
            case Retry(scope, why, _):
                yield f"retry {names[index]} {scope} {why}"
    yield from (f"relayed {names[index]}" for index in after.relayed)
    for word in ("dsn", "silent", "dropped"):
        yield from (f"{word} {names[index]}" for index in getattr(steps.telling, word))
    end = steps.after
    if end is None:
        yield "state done"
    elif end.state is State.PARKED:
        yield from (f"parked {names[index]}" for index in end.failed)
        yield "state parked"
    elif end == before:
        yield "state as before"
    elif end.state is State.DEFERRED:
        yield f"state deferred {end.next_attempt - NOW:.0f}s"
    else:
        yield f"state {end.state}"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.case")), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    """Each case file: the replies mean what the table of the primary's answers says."""
    case = read(path)
    words: dict[str, list[str]] = {}
    for _, word, rest in case.given:
        words.setdefault(word, []).append(rest)
    mail, before = mail_of_case(words), progress_of_case(words)
    open_ = open_recipients(before, len(mail.recipients))
    assert envelope(Job(new_entry(mail), mail, ContentRef(0, (0,), 5)), open_).size == 5
    if "delayed" in words:
        notice = delayed(mail, before)
        told = () if notice is None else notice.recipients
        assert [f"delayed {mail.recipients[index].mailbox}" for index in told] == case.wanted
        notices = () if notice is None else (notice,)
        check_notices(path, words, mail, before, {}, notices)
        return
    each: dict[int, Outcome] = {}
    after = before
    lines: list[str] = []
    if cause := next((each for each in Cause if each.value in words), None):
        due = before.next_attempt
        after = move(before, before.state, NOW, next_attempt=due, failed=open_, cause=cause)
    else:
        known = Known("accepted-lately" in words, mail.kind in (Kind.DSN, Kind.NOTICE))
        got = answers_of_case(case, mail, open_)
        raw = {index: outcome(stage, what, known) for index, (stage, what) in got.items()}
        lines.append(f"destination {type(seen(mail, raw)).__name__.lower()}")
        pulled = brake.Brake(pulled=0.0) if "braked" in words else brake.Brake()
        settled = settle(
            mail, before, raw, NOW, final=brake.final(pulled, 10.0), refusing="refusing" in words, jitter=0.0
        )
        each = {**settled.delivered, **settled.failed, **settled.retried}
        after = settled.progress or before
        if "offers-dsn" not in words and (told := relayed(mail, settled.delivered)):
            after = move(after, after.state, NOW, next_attempt=after.next_attempt, relayed=told)
    steps = plan(mail, after, NOW)
    lines = [*result(mail, each, before, after, steps), *lines]
    assert lines == case.wanted
    check_notices(path, words, mail, steps.before or after, each, steps.notices)
    assert encode(mail)


def check_notices(
    path: Path,
    words: Mapping[str, list[str]],
    mail: Mail,
    progress: Progress,
    each: Mapping[int, Outcome],
    notices: tuple[Notice, ...],
) -> None:
    """The octets of each notice are those of the .eml beside the case."""
    header = HEADER
    for line in words.get("header", ()):
        header += line.encode().decode("unicode_escape").encode("latin-1") + b"\r\n"
    said = {index: got.reply for index, got in each.items() if isinstance(got, Done | Failed)}
    job = Job(replace(new_entry(mail), progress=progress), mail, ContentRef(0, (0,), 5))
    for notice in notices:
        reports = [
            report(index, notice.action, progress.cause, said.get(index), job, "mx.office.example")
            for index in notice.recipients
        ]
        by = dsn.Written(
            notice.id,
            "mx1.backup.example",
            NOW,
            "=boundary=",
            mail.arrived + 30 * 86400,
            Language(words.get("language", ["en"])[0]),
        )
        octets = dsn.build(mail, notice.action, reports, header, by, progress.cause)
        twin = "" if len(notices) == 1 else f".{notice.action}"
        golden = path.with_suffix(f"{twin}.eml")
        if os.environ.get("GOLDEN"):
            golden.write_bytes(octets)
        assert octets == golden.read_bytes()


@pytest.mark.parametrize("path", sorted(CASES.glob("*.eml")), ids=lambda path: path.stem)
def test_notices_are_read_by_a_parser(path: Path) -> None:
    """RFC 6522, 3464: Python's parser finds the three parts, and each field of the status by its name."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    human, status, original = message.iter_parts()
    assert human.get_content_type() == "text/plain"
    assert not [*human.defects, *status.defects, *original.defects]
    assert status.get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    assert original.get_content_type() in ("text/rfc822-headers", "message/global-headers")
    of_mail, *groups = status.get_payload()
    if status.get_content_type() == "message/global-delivery-status":  # Python takes it for one message
        octets = of_mail.get_payload(decode=True)
        groups = [email.message_from_bytes(each) for each in octets.split(b"\r\n\r\n")]
    assert of_mail["Reporting-MTA"] == "dns; mx1.backup.example"
    assert of_mail["Arrival-Date"]
    assert groups
    for group in groups:
        action, code = group["Action"], group["Status"][0]
        assert code in {"failed": "45", "delayed": "4", "relayed": "2"}[action]
        assert group["Final-Log-ID"] == "mail000001"
        assert str(group["Final-Recipient"]).split("; ")[0] in ("rfc822", "utf-8")
        assert set(group.keys()) <= {
            "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
            "Last-Attempt-Date", "Will-Retry-Until", "Final-Log-ID",
        }  # fmt: skip


def test_unknown_word(tmp_path: Path) -> None:
    """An unknown word in a case file fails with file, line and the list of words."""
    path = tmp_path / "wrong.case"
    path.write_text("# rule\nmial from a to b\n---\n---\n")
    with pytest.raises(ValueError, match=r"wrong.case:2: 'mial'; known are mail, notify"):
        read(path)
