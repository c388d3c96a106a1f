"""All that is signed in a message: DKIM signatures and the chain of ARC seals, read and checked together.

The names of all keys are known from the header, so the caller finds the records first.
"""

from collections.abc import Mapping
from typing import NamedTuple

from services.verify import arc, dkim
from services.verify.canonical import Body
from services.verify.keys import Answer


class Examined(NamedTuple):
    """What a header holds. `key_names`: of the records that check() needs, each once, those of DKIM
    first; `seals`: this message is to be sealed."""

    signatures: dkim.Examined = dkim.Examined()
    chain: arc.Chain = arc.Chain()
    key_names: tuple[str, ...] = ()
    seals: bool = False

    @property
    def needs_body(self) -> bool:
        """Can be checked only with the body."""
        return self.seals or bool(self.key_names)


class Checked(NamedTuple):
    """A result a signature, top to bottom; that of the chain; SHA-256 of the body where we seal, else b""."""

    signatures: tuple[dkim.Checked, ...]
    chain: arc.Checked
    digest: bytes = b""


def examine(head: bytes, now: float, *, seals: bool) -> Examined:
    """Read a header (without the empty line). `now`: wall seconds UTC, for x=; `seals`: we seal what can be
    read."""
    examined = dkim.examine(head, now)
    chain = arc.examine(head, examined.fields, now, examined.defect)
    names = dict.fromkeys(examined.key_names + chain.key_names)
    return Examined(examined, chain, tuple(names), seals and not examined.defect)


def check(head: bytes, body: bytes | memoryview, examined: Examined, keys: Mapping[str, Answer]) -> Checked:
    """`keys`: TXT answers by `key_names`; `body` may be b"" where it is not needed."""
    hashed = Body(body)
    return Checked(
        dkim.verify(head, hashed, examined.signatures, keys),
        arc.verify(head, hashed, examined.signatures.fields, examined.chain, keys),
        hashed.hashed("relaxed")[0] if examined.seals else b"",
    )


def unknown(examined: Examined, reason: str) -> Checked:
    """Nothing of it could be checked, for a `reason` of ours."""
    lost = tuple(one.checked(dkim.Result.TEMPERROR, reason) for one in examined.signatures.signatures)
    chain = arc.Checked(arc.Result.NONE)
    if examined.chain.instances:
        chain = arc.Checked(arc.Result.FAIL, examined.chain.instances, reason, lasting=False)
    return Checked(lost or (dkim.Checked(dkim.Result.TEMPERROR, reason),), chain)
