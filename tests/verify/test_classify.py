"""Replies of the world's mail servers, and the finding that follows from each."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.hints import Us, hint
from libs.mail.reply import Foreign, foreign
from libs.mail.speaks import Stage, speaks
from libs.mail.stance import Stance, stance
from libs.mail.trouble import Server, Trouble, server, trouble
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable, classify

CASES = Path(__file__).parent / "cases" / "classify"
KEYWORDS = ("server", "stage", "speaks", "finding", "primary", "hint")
OPTIONAL = ("greeting", "invented", "reply", "fault")
US = Us(("192.0.2.1", "2001:db8::1"), "mx1.backup.example", ("mx2.backup.example",))


class Case(NamedTuple):
    """`reply` None: the session broke, for `fault`. `hint`: the trouble and the server, or `none`."""

    stage: str
    greeting: str
    invented: bool
    reply: Foreign | None
    fault: str
    speaks: str
    finding: str
    primary: str
    hint: str

    @property
    def holds(self) -> tuple[str, str, str, str]:
        """What is so, as the file writes it."""
        how = stance(self.stage, self.reply, invented=self.invented)
        stuck = trouble(how, self.reply, self.fault)
        at = server(self.greeting, self.reply)
        return (
            "none" if self.reply is None else speaks(self.stage, self.reply).value,
            described(classify(self.stage, self.reply, self.fault)),
            how.value,
            "none" if stuck is None else f"{stuck} at {at}",
        )

    @property
    def advice(self) -> str:
        """The owner's hint in full, "" for none."""
        stuck, _, at = self.hint.partition(" at ")
        return "" if stuck == "none" else hint(Trouble(stuck), Server(at), US)

    @property
    def expected(self) -> tuple[str, str, str, str]:
        return self.speaks, self.finding, self.primary, self.hint


def parse(name: str, text: str) -> Case:
    """A case file; a wrong line fails with its number and the keywords there are."""
    lines = text.splitlines()
    assert lines, name
    assert lines[0].startswith("# "), f"{name}:1: the first line is the rule"
    found: dict[str, str] = {}
    reply: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        keyword, _, value = line.partition(" ")
        if line == "---" or not line:
            continue
        known = KEYWORDS + OPTIONAL
        assert keyword in known, f"{name}:{number}: {keyword!r} is none of {', '.join(known)}"
        if keyword == "reply":
            assert re.match(r"[2-5]\d\d($|[ -])", value), f"{name}:{number}: no reply"
            reply.append(value)
        else:
            assert keyword not in found, f"{name}:{number}: {keyword} for the second time"
            found[keyword] = value
    assert {*found} >= {*KEYWORDS}, f"{name}: all of {', '.join(KEYWORDS)} are needed"
    assert bool(reply) != ("fault" in found), f"{name}: a reply or a fault"
    heard = foreign(int(reply[-1][:3]), "\n".join(line[4:] for line in reply)) if reply else None
    return Case(
        found["stage"],
        found.get("greeting", ""),
        "invented" in found,
        heard,
        found.get("fault", ""),
        *(found[keyword] for keyword in ("speaks", "finding", "primary", "hint")),
    )


def described(finding: Finding) -> str:
    match finding:
        case Deliverable():
            return "deliverable"
        case Undeliverable():
            return "undeliverable"
        case Unverifiable(reason, blocked):
            return f"unverifiable {reason}{' blocked' if blocked else ''}"


FILES = sorted(CASES.glob("*.case"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    """Each case file: what the reply speaks of, and what follows for the recipient, the primary and its
    owner."""
    case = parse(path.name, path.read_text("utf-8"))
    assert case.holds == case.expected
    assert (case.primary == "blocking") <= case.finding.endswith(" blocked")
    assert (case.primary == "blocking") <= ("192.0.2.1" in case.advice)


def test_there_are_cases_and_the_readme_is_one() -> None:
    """The catalogue is not empty, and its README shows a case that runs."""
    assert len(FILES) >= 150
    block = (CASES / "README.md").read_text("utf-8").split("```")[1].strip()
    case = parse("README.md", "\n".join(re.split(r" {2,}", line)[0] for line in block.splitlines()))
    assert case.holds == case.expected
    with pytest.raises(AssertionError, match=r"x:2: 'stag' is none of server, stage, speaks"):
        parse("x", "# rule\nstag RCPT\n")


@pytest.mark.parametrize("reason", ["refused", "timeout", "unreachable", "closed", "malformed"])
def test_no_reply_is_no_finding(reason: str) -> None:
    """Whatever breaks on the way says nothing about the recipient."""
    assert isinstance(classify(Stage.RCPT, None, reason), Unverifiable)


WORDS = (
    "user unknown|no such user|mailbox|recipient|sender|rejected|denied|relay|spf|blocked using|spamhaus"
    "|greylisted|quota|full|your ip|host|access|4.7.1|5.1.1|5.7.1|try again|limit|550|[192.0.2.25]"
    "|<ann@office.example>|: "
).split("|")


@given(
    st.sampled_from(list(Stage)),
    st.integers(200, 599),
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join),
    st.booleans(),
)
def test_a_primary_that_blocks_us_says_nothing_of_a_recipient(
    stage: Stage, code: int, text: str, invented: bool
) -> None:
    """Whatever the words: who blocks or greylists us has not answered the question, and its owner gets a
    hint."""
    reply = foreign(code, text)
    how, finding = stance(stage, reply, invented=invented), classify(stage, reply)
    if how in (Stance.BLOCKING, Stance.GREYLISTING):
        assert isinstance(finding, Unverifiable)
    stuck = trouble(how, reply)
    assert (stuck is None) == (how is Stance.FINE) or how is Stance.NOTHING
    if stuck not in (None, Trouble.CATCH_ALL, Trouble.LATE):
        assert "192.0.2.1" in hint(stuck, server("", reply), US)


@given(st.sampled_from(list(Stage)), st.integers(200, 599), st.text(max_size=300))
def test_only_a_5yz_about_the_mailbox_is_a_no(stage: Stage, code: int, text: str) -> None:
    """No 4yz, nothing before RCPT and no text with a 5.7.x code is ever `undeliverable`; nothing raises."""
    reply = foreign(code, text)
    if code < 500 or stage not in (Stage.RCPT, Stage.DOT) or reply.enhanced.startswith("5.7."):
        assert not isinstance(classify(stage, reply), Undeliverable)
    else:
        classify(stage, reply)


HOSTILE = [
    "!" * 500,
    "user " * 100,
    "user " + "a " * 240,
    "(" * 499,
    "postfach" + " x" * 240,
    "a@" * 250,
    "client host " * 40,
    "ip " * 160,
    "unable to " * 50,
    "system a " * 55,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_take_no_time(text: str) -> None:
    """A text made to confuse the patterns is read in linear time (the test's time-out is the judge)."""
    for _ in range(50):
        reply = Foreign(550, "", text)
        stance("RCPT", reply)
        trouble(Stance.BLOCKING, reply)
        server(text, reply)


POLICIES = [
    "550 {} blocked using zen.spamhaus.org",
    "550 5.7.1 {}",
    "550 relay not permitted for {}",
    "550 sender verify failed {}",
    "550 5.1.1 {} SPF fail",
    "552 5.2.2 {} over quota",
    "550 {} mailbox quota exceeded",
    "450 4.7.1 {} greylisted",
    "550 {}: your host is not allowed",
    "554 5.7.26 {} DMARC",
    "550 {} too many recipients",
]


@pytest.mark.parametrize("text", POLICIES)
@pytest.mark.parametrize(
    "words", ["user unknown", "no such user", "mailbox unavailable", "recipient not found"]
)
def test_blocks_policies_and_quotas_are_never_no_such_user(text: str, words: str) -> None:
    """Even when a reply also says `user unknown`, a block, policy, quota or sender rejection is not that."""
    code, _, rest = text.format(words).partition(" ")
    assert not isinstance(classify("RCPT", foreign(int(code), rest)), Undeliverable)
