"""Arriving fields that claim to be our Authentication-Results (RFC 8601 section 5), in whatever way some
reader would take them for ours: they must not be relayed. All is linear in the length of the header.
"""

import re
from collections.abc import Callable
from itertools import dropwhile

from libs.mail.headers import comment_end, field_end, lowered, nested

# A name folded before its colon is none (RFC 5322 section 4.5.8); who unfolds first takes it for one.
_CLAIMING = re.compile(rb"^authentication-results(?:[ \t]|\r?\n[ \t])*+:", re.IGNORECASE | re.MULTILINE)
_WORDS = re.compile(
    rb'[\s)]++|(?P<comment>\()|(?P<text>"(?:[^"\\]|\\.)*+"?|(?:[^\s()";\\]|\\.)++)|(?P<end>;)',
    re.DOTALL,
)
_UNESCAPED = re.compile(rb"[^()]*+([()]?)")
_LOOSE = re.compile(rb"[A-Za-z0-9._\x80-\xff-]++")  # what could be a host, whatever stands around it
# What is looked at of a header full of Authentication-Results: so many fields, so many octets and parts of
# each. A field that hides its id behind more than that is taken for a forged one.
_FIELDS_LOOKED_AT = 200
_OCTETS_LOOKED_AT = 2000
_PARTS_LOOKED_AT = 100  # words, blanks and comments before an id
_WORD_OCTETS = 600  # that may spell a name; one has 253
# Of ids that are not ASCII so many octets in all: making A-labels of them takes microseconds an octet.
_STRANGE_OCTETS = 4000


def claims(head: bytes, *authserv_ids: str) -> tuple[tuple[int, int], ...]:
    """The octet ranges of arriving Authentication-Results fields that claim one of our ids, in any spelling:
    upper case, comments, quoted, folded, with a version, with a final dot (RFC 8601 section 5), or such that
    only a careless reader takes it for ours. So are lines that begin with a blank above the first field:
    below our own field they would be a part of it.

    Ranges are in order and apart. Of more than 200 fields the rest counts as forged, from the next one to the
    end of the last one whose name begins so: such a header loses what stands between them, and costs us no
    time and no room. So do fields once their ids that are not ASCII are longer than 4000 octets in all.
    """
    found = [(0, field_end(head, 0))] if head[:1] in (b" ", b"\t") else []
    if b"\nauthentication-results" not in (low := lowered(head)):
        return tuple(found)  # nearly all mail: told apart ten times as fast
    ours = {_plain(name.encode()) for name in authserv_ids}
    strange = 0
    for number, match in enumerate(_CLAIMING.finditer(head)):
        start, end = match.start(), field_end(head, match.start())
        beyond = number >= _FIELDS_LOOKED_AT
        if beyond:
            end = field_end(head, low.rfind(b"\nauthentication-results"))
        else:
            readings = _readings(head, match.end(), end, ours)
            strange += sum(len(reading) for reading in readings if not reading.isascii())
            if strange <= _STRANGE_OCTETS and ours.isdisjoint(map(_plain, readings)):
                continue
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
        if beyond:
            break
    return tuple(found)


def _readings(head: bytes, start: int, end: int, ours: set[bytes]) -> set[bytes]:
    """What the authserv-id between `start` and `end` may be read as. All of `ours` if it is hidden."""
    limit = min(end, start + _OCTETS_LOOKED_AT)
    rules = (comment_end, _without_escapes, _without_nesting) if b"(" in head[start:limit] else (comment_end,)
    found: set[bytes] = set()
    for rule in rules:
        words = _words(head, start, limit, end, rule)
        if words is None or any(b"=?" in word for word in words):
            return ours  # an encoded word is no id
        found |= _names(words)
    return found


def _words(head: bytes, at: int, limit: int, end: int, rule: "_Comment") -> list[bytes] | None:
    """Up to the semicolon behind them; one before them says nothing, nor do signs that are no part of a name.
    What stands in a comment that never ends is read, too. None for what hides them."""
    words: list[bytes] = []
    endless = False
    for _ in range(_PARTS_LOOKED_AT):
        match = _WORDS.match(head, at, limit)
        if match is None or (match["end"] and words):
            return words if words or limit == end else None
        at = match.end()
        if match["comment"] and not endless:
            closed = rule(head, at, limit)
            endless = closed is None
            if endless and limit < end:
                return None
            at = closed or at
        elif match["text"] and _LOOSE.search(match["text"]):
            word = match["text"][:_WORD_OCTETS]
            words.append(_unescaped(word.strip(b'"')) if word.startswith(b'"') else word)
    return None


def _names(words: list[bytes]) -> set[bytes]:
    """The first word; all of them joined, with and without a version, for readers that drop comments, blanks
    and backslashes; what could be a host in them, for those that pass over odd signs or end at a NUL. A first
    word that begins with a bracket, quoted or behind a backslash, is a comment to OpenDMARC."""
    plain = [_unescaped(word) for word in words]
    texts = [b" ".join(words)]
    found = set(words[:1])
    for left in (plain, list(dropwhile(lambda word: word.startswith(b"("), plain))):
        texts.append(b"".join(left))
        found.update(left[:1])
        if len(left) > 1 and left[-1].isdigit():
            found.add(b"".join(left[:-1]))
    return found.union(texts, (host[0] for text in texts if (host := _LOOSE.search(text))))


def _unescaped(word: bytes) -> bytes:
    return re.sub(rb"\\(.)|\r\n", rb"\1", word, flags=re.DOTALL)


# --- comments, as they are read ---

_Comment = Callable[[bytes, int, int], int | None]


def _without_escapes(head: bytes, at: int, end: int) -> int | None:
    """As SpamAssassin reads a comment."""
    return nested(_UNESCAPED, head, at, end)


def _without_nesting(head: bytes, at: int, end: int) -> int | None:
    """As a simple expression does."""
    return head.find(b")", at, end) + 1 or None


def _plain(name: bytes) -> bytes:
    """For comparing ids: lower case, A-labels, no final dot."""
    text = name.decode("utf-8", "replace").strip().rstrip(".").lower()
    if text.isascii():
        return text.encode()
    try:
        return text.encode("idna").rstrip(b".")
    except UnicodeError:
        return text.encode()
