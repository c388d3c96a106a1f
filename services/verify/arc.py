"""ARC (RFC 8617): a message with the seals of those who handled it before us -> does their chain hold?

As with DKIM, the names of all keys are known from the header, so the caller finds the records first.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from dkim.util import InvalidTagValueList  # type: ignore[import-untyped]

from libs.mail.headers import Field, comment_end
from services.verify import dkim
from services.verify.canonical import Body, canonical_field, unsigned
from services.verify.keys import ALGORITHMS, Answer, Refused, decoded, key_of, listed, tag_list
from services.verify.keys import Result as Word

INSTANCES = 50  # section 5.2 step 1
KEYS = 16  # of one chain; nobody's mail goes through so many hands
FAILED_BEFORE = "the chain had failed before"
TOO_MANY_KEYS = "too many keys in the chain"
_NAMES = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
# The instance that an ARC-Authentication-Results field begins with (sections 3.9 and 4.1.1), comments apart.
_INSTANCE = re.compile(rb"\s*+i\s*+=\s*+([0-9]++)\s*+;")
_UP_TO_COMMENT = re.compile(rb"[^(;]*+([(;]?+)")
# What opens and does not end is looked at once, with all behind it: sought again from every sign in it, it
# would take time quadratic in its length.
_HIDDEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|\((?:[^()\\]|\\.)*+\)|(["(].*+)', re.DOTALL)
# What may be left over: comments in comments and worse, as nobody writes who means it.
_OPENS = re.compile(rb'["()\\]')
_DMARC = re.compile(rb";\s*+dmarc\s*+(?:/\s*+[0-9]++\s*+)?=\s*+([^\s;]*+)", re.IGNORECASE)
_SEAL_TAGS = frozenset((b"i", b"a", b"b", b"cv", b"d", b"s"))


class Result(StrEnum):
    """Section 4.4: what a chain is."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"


class Checked(NamedTuple):
    """What became of the chain. `instances`: the highest; `sealers`: of a chain that passes, d= of the seals,
    the first one first; `began`: the results in its first set say that DMARC passed; `author`: the newest
    message signature covers From; `lasting`: a failure is for good, not one of DNS in this minute."""

    result: Result
    instances: int = 0
    reason: str = ""
    sealers: tuple[str, ...] = ()
    began: bool = False
    author: bool = False
    lasting: bool = True


class Set(NamedTuple):
    """One ARC Set: its three fields, the tags of the last two."""

    results: Field
    message: dkim.Signature
    seal: dkim.Signature


class Chain(NamedTuple):
    """What a header holds. `sets`: in the order of instances, none where there is a `defect`; `instances`:
    the highest, 0 for a message without ARC."""

    sets: tuple[Set, ...] = ()
    instances: int = 0
    defect: str = ""

    @property
    def key_names(self) -> list[str]:
        """Of the records that verify() needs, the newest first."""
        if not self.sets:
            return []
        return [self.sets[-1].message.key_name, *(each.seal.key_name for each in reversed(self.sets))]


def examine(head: bytes, found: Sequence[Field], now: float, defect: str = "") -> Chain:
    """Read the chain in the header `head`, whose fields are `found` (section 5.2, steps 1 to 3). `now`: wall
    seconds UTC, for x=; `defect`: why nothing in this header can be verified."""
    fields: dict[bytes, list[Field]] = {name: [] for name in _NAMES}
    for field in found:
        if (name := field.name.lower()) in fields:
            fields[name].append(field)
    count = max(map(len, fields.values()))
    if not count:
        return Chain()
    try:
        if defect:
            raise _bad(defect)
        if count > INSTANCES:
            raise _bad("too many instances")
        return _within_bounds(Chain(_sets(head, fields, now), count))
    except Refused as refused:
        return Chain((), count, refused.reason)


def verify(
    head: bytes, body: Body, found: Sequence[Field], chain: Chain, keys: Mapping[str, Answer]
) -> Checked:
    """Section 5.2, steps 4 to 7: the newest signature of the message, then all seals. `keys`: TXT answers by
    `key_names`."""
    if not chain.instances:
        return Checked(Result.NONE)
    if chain.defect:  # a bound of ours is no reason to tell others that it failed
        lasting = chain.defect != TOO_MANY_KEYS
        return Checked(Result.FAIL, chain.instances, chain.defect, lasting=lasting)
    newest = chain.sets[-1]
    step = "message signature"
    try:
        dkim.check(head, body, found, newest.message, keys[newest.message.key_name])
        digests = _digests(head, chain.sets)
        for number, each in reversed(list(enumerate(chain.sets, 1))):
            step = f"seal {number}"
            key = key_of(keys[each.seal.key_name], each.seal.tags[b"a"])
            key.check(decoded(each.seal.tags[b"b"]), digests[number - 1])
    except Refused as refused:
        lasting = refused.result is not Word.TEMPERROR
        return Checked(Result.FAIL, chain.instances, f"{step}: {refused.reason}", lasting=lasting)
    sealers = tuple(each.seal.tag(b"d").lower() for each in chain.sets)
    first = chain.sets[0].results
    began = _passed(head[first.value : first.end])
    author = b"from" in listed(newest.message.tags[b"h"])
    return Checked(Result.PASS, chain.instances, "", sealers, began, author)


def sealed(head: bytes, sets: Sequence[Set]) -> bytes:
    """What a seal behind these sets signs of them (section 5.1.1): all fields in order, relaxed."""
    return b"".join(
        _below_seal(head, each) + canonical_field(head, each.seal.field, relaxed=True) for each in sets
    )


def _below_seal(head: bytes, each: Set) -> bytes:
    """What a seal covers of its own set, besides itself."""
    return b"".join(
        canonical_field(head, field, relaxed=True) for field in (each.results, each.message.field)
    )


def _passed(results: bytes) -> bool:
    """Does this field say dmarc=pass (RFC 8601 section 2.2), and nothing else of DMARC? Comments and quotes
    say nothing."""
    plain = _HIDDEN.sub(rb" \1", results)
    return not _OPENS.search(plain) and {each.lower() for each in _DMARC.findall(plain)} == {b"pass"}


def _within_bounds(chain: Chain) -> Chain:
    """Raises Refused."""
    if len(set(chain.key_names)) > KEYS:
        raise _bad(TOO_MANY_KEYS)
    return chain


def _bad(reason: str) -> Refused:
    return Refused(Word.FAIL, reason)


def _sets(head: bytes, fields: Mapping[bytes, Sequence[Field]], now: float) -> tuple[Set, ...]:
    """Raises Refused."""
    by_instance: list[dict[int, Field]] = []
    tags: dict[Field, Mapping[bytes, bytes]] = {}
    for name in _NAMES:
        numbered: dict[int, Field] = {}
        for field in fields[name]:
            if name is not _NAMES[0]:
                tags[field] = _tags(head, field)
            number = _instance(tags[field].get(b"i", b"")) if field in tags else _leading(head, field)
            if number in numbered:
                raise _bad(f"instance {number} comes twice")
            numbered[number] = field
        by_instance.append(numbered)
    highest = max(len(numbered) for numbered in by_instance)
    if any(numbered.keys() != set(range(1, highest + 1)) for numbered in by_instance):
        raise _bad("instances are missing")
    sets = [
        Set(results[number], _signature(message[number], tags), _signature(seal[number], tags))
        for results, message, seal in [by_instance]
        for number in range(1, highest + 1)
    ]
    if sets[-1].seal.tags.get(b"cv", b"").lower() == b"fail":  # step 2
        raise _bad(FAILED_BEFORE)
    for number, each in enumerate(sets, 1):
        _check_seal_tags(each.seal.tags, b"none" if number == 1 else b"pass")
    _check_message_tags(sets[-1].message.tags, now)
    return tuple(sets)


def _tags(head: bytes, field: Field) -> Mapping[bytes, bytes]:
    try:
        return tag_list(head[field.value : field.end])
    except InvalidTagValueList as error:
        raise _bad(f"malformed {field.name.decode()}") from error


def _leading(head: bytes, field: Field) -> int:
    parts, at = [], field.value
    while match := _UP_TO_COMMENT.match(head, at, field.end):
        parts.append(match[0])
        if match[1] != b"(":
            break
        parts[-1] = parts[-1][:-1] + b" "
        at = comment_end(head, match.end(), field.end) or field.end
    found = _INSTANCE.fullmatch(b"".join(parts))
    return _instance(found[1] if found else b"")


def _instance(value: bytes) -> int:
    """Section 4.2.1."""
    if not (value.isdigit() and len(value) <= 2 and 1 <= int(value) <= INSTANCES):
        raise _bad("an instance is no number from 1 to 50")
    return int(value)


def _signature(field: Field, tags: Mapping[Field, Mapping[bytes, bytes]]) -> dkim.Signature:
    """`i` is the instance here, and not the agent that it is with DKIM."""
    return dkim.Signature(field, {name: value for name, value in tags[field].items() if name != b"i"}, None)


def _check_message_tags(tags: Mapping[bytes, bytes], now: float) -> None:
    """Section 4.1.2: as DKIM's, without a version; whatever fields it covers, but over a seal it cannot
    hold."""
    try:
        dkim.check_tags(tags, now)
    except Refused as refused:
        raise _bad(f"message signature: {refused.reason}") from refused
    if b"arc-seal" in listed(tags[b"h"]):
        raise _bad("message signature: a seal is signed")


def _check_seal_tags(tags: Mapping[bytes, bytes], validation: bytes) -> None:
    """Section 4.1.3. `validation`: what cv= must say."""
    if missing := sorted(_SEAL_TAGS - tags.keys() - {b"i"}):
        raise _bad(f"no {missing[0].decode()}= in seal")
    if b"h" in tags:
        raise _bad("h= in seal")
    if tags[b"cv"].lower() != validation:
        raise _bad(f"cv= in seal is not {validation.decode()}")
    if tags[b"a"] not in ALGORITHMS:
        raise _bad("unknown algorithm in seal")
    if not dkim.is_name(tags[b"d"]) or not dkim.is_name(tags[b"s"]):
        raise _bad("d= or s= in seal is no name")
    if b"t" in tags and not (tags[b"t"].isdigit() and len(tags[b"t"]) < 20):
        raise _bad("t= in seal is no number")


def _digests(head: bytes, sets: Sequence[Set]) -> list[bytes]:
    """What each seal signs (section 5.1.1), hashed: all sets before it, its own, itself without b=. Each
    field is looked at once, however many seals cover it."""
    before, digests = sha256(), []
    for each in sets:
        before.update(_below_seal(head, each))
        own = before.copy()
        own.update(unsigned(head, each.seal.field, relaxed=True))
        digests.append(own.digest())
        before.update(canonical_field(head, each.seal.field, relaxed=True))
    return digests
