"""Replies of the world's mail servers, and the finding that follows from each."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.reply import Foreign, foreign
from libs.mail.speaks import Speaks, Stage, speaks
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable, classify

CASES = Path(__file__).parent / "cases" / "classify"
KEYWORDS = ("server", "stage", "reply", "speaks", "finding")


class Case(NamedTuple):
    stage: str
    reply: Foreign
    speaks: str
    finding: str


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
        assert keyword in KEYWORDS, f"{name}:{number}: {keyword!r} is none of {', '.join(KEYWORDS)}"
        if keyword == "reply":
            assert re.match(r"[2-5]\d\d($|[ -])", value), f"{name}:{number}: no reply"
            reply.append(value)
        else:
            assert keyword not in found, f"{name}:{number}: {keyword} for the second time"
            found[keyword] = value
    assert {*found, "reply"} == set(KEYWORDS), f"{name}: all of {', '.join(KEYWORDS)} are needed"
    code = int(reply[-1][:3])
    heard = foreign(code, "\n".join(line[4:] for line in reply))
    return Case(found["stage"], heard, found["speaks"], found["finding"])


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
    """Each case file: the reply speaks of what it says, and the finding follows."""
    case = parse(path.name, path.read_text("utf-8"))
    assert speaks(case.stage, case.reply) == Speaks(case.speaks)
    assert described(classify(case.stage, case.reply)) == case.finding


def test_there_are_cases_and_the_readme_is_one() -> None:
    """The catalogue is not empty, and its README shows a case that runs."""
    assert len(FILES) >= 60
    block = (CASES / "README.md").read_text("utf-8").split("```")[1].strip()
    case = parse("README.md", "\n".join(re.split(r" {2,}", line)[0] for line in block.splitlines()))
    assert described(classify(case.stage, case.reply)) == case.finding
    with pytest.raises(AssertionError, match=r"x:2: 'stag' is none of server, stage"):
        parse("x", "# rule\nstag RCPT\n")


@pytest.mark.parametrize("reason", ["refused", "timeout", "unreachable", "closed", "malformed"])
def test_no_reply_is_no_finding(reason: str) -> None:
    """Whatever breaks on the way says nothing about the recipient."""
    assert isinstance(classify(Stage.RCPT, None, reason), Unverifiable)


@given(st.sampled_from(list(Stage)), st.integers(200, 599), st.text(max_size=300))
def test_only_a_5yz_about_the_mailbox_is_a_no(stage: Stage, code: int, text: str) -> None:
    """No 4yz, nothing before RCPT and no text with a 5.7.x code is ever `undeliverable`; nothing raises."""
    reply = foreign(code, text)
    if code < 500 or stage not in (Stage.RCPT, Stage.DOT) or reply.enhanced.startswith("5.7."):
        assert not isinstance(classify(stage, reply), Undeliverable)
    else:
        classify(stage, reply)


HOSTILE = ["!" * 500, "user " * 100, "user " + "a " * 240, "(" * 499, "postfach" + " x" * 240, "a@" * 250]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_take_no_time(text: str) -> None:
    """A text made to confuse the patterns is read in linear time (the test's time-out is the judge)."""
    for _ in range(200):
        speaks("RCPT", Foreign(550, "", text))


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
