"""MTA-STS records and policies are read as the case files say (cases/sts/README.case explains them)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.smtp.sts_policy import LONGEST, BadPolicy, Mode, Policy, covers, policy_id, read_policy

CASES = sorted((Path(__file__).parent / "cases/sts").glob("*.case"))
HOSTS = ("mail", "mx.a", "office")


def told(policy: Policy) -> list[str]:
    names = {"mail": "mail.office.example", "mx.a": "mx.a.office.example", "office": "office.example"}
    taken = [host for host in HOSTS if covers(policy, names[host])]
    return [
        " ".join([policy.mode, str(policy.max_age), *policy.mx]),
        " ".join(["takes", *taken]),
    ]


def read(octets: bytes) -> list[str]:
    try:
        return told(read_policy(octets))
    except BadPolicy as error:
        return [f"bad {error}"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases(path: Path) -> None:
    _, texts, policy, wanted = path.read_text("utf-8").split("---\n")
    announced = policy_id(texts.splitlines())
    for octets in (policy.encode(), policy.replace("\n", "\r\n").encode(), policy.encode().rstrip(b"\n")):
        assert [f"id {announced or '-'}", *read(octets)] == wanted.splitlines()


def test_not_utf8_and_too_long() -> None:
    """What cannot stand in a case file."""
    assert read(b"version: STSv1\nx: \xff\n") == ["bad not UTF-8"]
    assert read(b"x" * (LONGEST + 1)) == ["bad longer than 65536 octets"]
    assert read(b"version: STSv1\rmode: none\n") == ["bad not a field: 'version: STSv1\\rmode: none'"]


LABELS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z")
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
PATTERNS = st.tuples(st.sampled_from(["", "*."]), NAMES).map("".join)


@given(st.sampled_from(Mode), st.lists(PATTERNS, min_size=1, max_size=5), st.integers(0, 31_557_600))
def test_what_is_written_is_read(mode: Mode, patterns: list[str], age: int) -> None:
    lines = [
        "version: STSv1",
        f"mode: {mode}",
        *(f"mx: {pattern}" for pattern in patterns),
        f"max_age: {age}",
    ]
    assert read_policy("\n".join(lines).encode()) == Policy(mode, tuple(patterns), age)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_noise_is_a_policy_or_none(octets: bytes) -> None:
    """Nothing but BadPolicy is raised, and what is read can be asked."""
    try:
        policy = read_policy(octets)
    except BadPolicy:
        return
    assert not covers(policy, "")


@given(st.lists(st.text()))
def test_noise_is_an_id_or_none(texts: list[str]) -> None:
    announced = policy_id([*texts, *(f"v=STSv1;{text}" for text in texts[:1])])
    assert announced == "" or (announced.isalnum() and announced.isascii() and len(announced) <= 32)
