"""MTA-STS (RFC 8461): the record that says there is a policy, and the policy itself, read strictly."""

import re
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

LONGEST = 65_536  # octets of a policy (section 3.2)
_LONGEST_AGE_S = 31_557_600  # section 3.2: a year

# Section 3.1. All is case-sensitive.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
_RECORD_FIELD = re.compile(rf"{_NAME}=[\x21-\x3a\x3c\x3e-\x7e]+")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
# Section 3.2; a value begins and ends with something that is no blank.
_POLICY_FIELD = re.compile(rf"({_NAME}):[ \t]*([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_AGE = re.compile(r"[0-9]{1,10}")


class Mode(StrEnum):
    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class Policy(Struct, frozen=True):
    """`mx`: patterns in lower case, `*.` for exactly one label; `max_age`: seconds it may be kept."""

    mode: Mode
    mx: tuple[str, ...]
    max_age: int


class BadPolicy(ValueError):  # noqa: N818 says what the file is
    """It is none; its text says in a sentence why."""


def policy_id(texts: Sequence[str]) -> str:
    """The id in the TXT records of `_mta-sts.` + domain; "" where they announce no policy.

    Several records, or one that is not right, are none (section 3.1).
    """
    records = [text for text in texts if text.startswith("v=STSv1;")]
    if len(records) != 1:
        return ""
    fields = [field.strip(" \t") for field in records[0].split(";")[1:]]
    if fields and not fields[-1]:
        fields.pop()  # what stands behind the last semicolon
    if not all(_RECORD_FIELD.fullmatch(field) for field in fields):
        return ""
    ids = [field.removeprefix("id=") for field in fields if field.startswith("id=")]
    return ids[0] if len(ids) == 1 and _ID.fullmatch(ids[0]) else ""


def read_policy(octets: bytes) -> Policy:
    """Raises BadPolicy. Of a field that is there twice the first one counts, but for mx; unknown fields are
    passed over (section 3.2). Empty lines at the end do no harm."""
    if len(octets) > LONGEST:
        raise BadPolicy(f"longer than {LONGEST} octets")
    try:
        lines = octets.decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadPolicy("not UTF-8") from error
    first: dict[str, str] = {}
    patterns: list[str] = []
    for line in lines:
        match = _POLICY_FIELD.fullmatch(line)
        if match is None:
            raise BadPolicy(f"not a field: {line[:80]!r}")
        name, value = match.groups()
        if name == "mx":
            patterns.append(_pattern(value))
        first.setdefault(name, value)
    if first.get("version") != "STSv1":
        raise BadPolicy("no version: STSv1")
    if first.get("mode") not in list(Mode):
        raise BadPolicy("no mode: enforce, testing or none")
    mode = Mode(first["mode"])
    if not _AGE.fullmatch(first.get("max_age", "")):
        raise BadPolicy("no max_age in seconds")
    if not patterns and mode is not Mode.NONE:
        raise BadPolicy("no mx")
    return Policy(mode, tuple(patterns), min(int(first["max_age"]), _LONGEST_AGE_S))


def _pattern(value: str) -> str:
    if not _PATTERN.fullmatch(value):
        raise BadPolicy(f"no host name in mx: {value[:80]!r}")
    return value.lower()


def covers(policy: Policy, host: str) -> bool:
    """May `host` (lower-case A-label) take the domain's mail (section 4.1)? `*.` stands for one label."""
    _, _, parent = host.partition(".")
    return host in policy.mx or (bool(parent) and f"*.{parent}" in policy.mx)
