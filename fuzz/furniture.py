"""What the ingest under fuzz knows: domains, recipients, limits; and what its verify says when asked."""

from libs.mail.knowledge import RecipientStatus, Status
from libs.mail.records import Domain, Overrides

HOST = "mx1.backup.example"
OPERATORS = "ops@operators.example"
MAX_ERRORS = 6
MAX_SIZE, SMALL_SIZE = 65_536, 3_000
DOMAINS = {
    "office.example": MAX_SIZE,
    "small.example": SMALL_SIZE,
}
KNOWN = ("ann", "bob", "kim")
UNKNOWN = ("nobody", "noone")
# The local part of whom verify is asked about begins with what it answers; "mute": nothing.
ASKED = ("yes", "no", "mute")
# A content that has this line gets this verdict.
REJECT, DEFER = b"X-Verdict: reject\r\n", b"X-Verdict: defer\r\n"


def domains() -> list[Domain]:
    return [
        Domain("office.example", 1.0, active_since=2.0),
        Domain("small.example", 1.0, active_since=2.0, overrides=Overrides(max_size=SMALL_SIZE)),
        Domain("waiting.example", 1.0),
        Domain("rest.example", 1.0, active_since=2.0, suspended=True),
    ]


def statuses(now: float) -> list[RecipientStatus]:
    """`now`: wall seconds. The negative ones stay valid for hours."""
    return [
        RecipientStatus(f"{name}@{domain}", status, now, now)
        for domain in DOMAINS
        for names, status in ((KNOWN, Status.DELIVERABLE), (UNKNOWN, Status.UNDELIVERABLE))
        for name in names
    ]
