"""Who asks primaries, for those who want something asked that no client waits for."""

from typing import Protocol

from libs.log.contract import Claim
from libs.mail.knowledge import RecipientTry
from services.verify.learning import Known


class Asker(Protocol):
    """All return at once."""

    def claim_of(self, domain: str) -> Claim | None:
        """Ours, held; None where another process asks."""
        ...

    def flies(self, key: bytes) -> bool:
        """Is a question about this mailbox under way?"""
        ...

    def refusal(self, domain: str, *, known: bool) -> str:
        """Why nothing is dialled, or ""; `known`: it does not count as a guess."""
        ...

    def ask(self, key: bytes, domain: str, known: Known, *, attempts: int = 0, gentle: bool) -> None: ...

    def probe(self, domain: str) -> None:
        """Ask for a mailbox that nobody has."""
        ...

    def write(self, key: bytes, domain: str, tried: RecipientTry) -> None: ...
