"""What a replica of `recipients` holds of each domain: whom to take for a control, who is in doubt, and who
is too many. Deliverable recipients are never too many."""

from collections.abc import Iterable

from libs.mail.knowledge import OPERATOR, RecipientRecord, RecipientStatus, RecipientTry, Status

NEGATIVES = 10_000  # a domain: undeliverable ones, and as many tries that told nothing
_CONTROLS = 32  # deliverable recipients remembered a domain: some of them are left when others go


class _Of:
    """One domain; keys in the order in which they were written last."""

    def __init__(self) -> None:
        self.controls: dict[bytes, None] = {}
        self.doubts: dict[bytes, float] = {}
        self.negatives: dict[bytes, None] = {}
        self.tries: dict[bytes, None] = {}

    @property
    def empty(self) -> bool:
        return not (self.controls or self.doubts or self.negatives or self.tries)


class Index:
    """`folded` is told of each record; domains are octets. `most`: NEGATIVES."""

    def __init__(self, most: int = NEGATIVES) -> None:
        self._most = most
        self._domains: dict[bytes, _Of] = {}
        self._crowded: dict[bytes, None] = {}

    def folded(self, key: bytes, found: RecipientRecord | None) -> None:
        """`found`: what the replica has of `key`, a recipient's or its try's, now; None for nothing."""
        domain = key.rpartition(b"@")[2]
        of = self._domains.setdefault(domain, _Of())
        if key.startswith(b"try:"):
            self._tried(of, key, found)
        else:
            self._said(of, key, found)
        if max(len(of.negatives), len(of.tries)) > self._most:
            self._crowded[domain] = None
        if of.empty:
            del self._domains[domain]

    def controls(self, domain: bytes) -> Iterable[bytes]:
        """Keys of some deliverable recipients."""
        of = self._domains.get(domain)
        return () if of is None else of.controls

    def doubts(self, domain: bytes) -> dict[bytes, float]:
        """Who is contradicted, by key (without `try:`), and since when (wall seconds)."""
        of = self._domains.get(domain)
        return {} if of is None else of.doubts

    def crowded(self) -> list[bytes]:
        """The domains that may have more than they may."""
        return list(self._crowded)

    def surplus(self, domain: bytes) -> list[bytes]:
        """The keys that are too many, those that were written longest ago."""
        of = self._domains.get(domain)
        most = [] if of is None else [*_beyond(of.negatives, self._most), *_beyond(of.tries, self._most)]
        if not most:
            self._crowded.pop(domain, None)
        return most

    def _tried(self, of: _Of, key: bytes, tried: RecipientRecord | None) -> None:
        name = key.removeprefix(b"try:")
        of.doubts.pop(name, None)
        of.tries.pop(key, None)
        if tried is not None:
            assert isinstance(tried, RecipientTry)
            if tried.against_since > 0:
                of.doubts[name] = tried.against_since
            elif not tried.imported:
                of.tries[key] = None

    def _said(self, of: _Of, key: bytes, status: RecipientRecord | None) -> None:
        assert status is None or isinstance(status, RecipientStatus)
        if status is None or status.status is not Status.DELIVERABLE:
            of.controls.pop(key, None)
        elif status.source != OPERATOR and len(of.controls) < _CONTROLS:  # a word of his is no witness
            of.controls[key] = None
        of.negatives.pop(key, None)
        if status is not None and status.status is Status.UNDELIVERABLE:
            of.negatives[key] = None


def _beyond(keys: dict[bytes, None], most: int) -> list[bytes]:
    return [key for key, _ in zip(keys, range(len(keys) - most), strict=False)]
