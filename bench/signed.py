"""Mails of about 10 kB that somebody signed, and the DNS of those who did."""

from tests.verify import sign
from tests.verify.sign import zone_text

CLIENT, HELO, SENDER = "127.0.0.1", "client.sender.example", "bob@sender.example"
_LINE = r"Lines of text as a mail has them, each of the same length.\r\n"
_DKIM = ("sign rsa2048 d=sender.example s=rsa",)
# kind -> what is done to a mail, in the words of tests.verify.sign
KINDS = {
    "dkim": _DKIM,
    "arc": (
        *_DKIM,
        "sign ed25519 d=sender.example s=ed",
        "arc rsa2048 i=1 d=list.example s=arc",
        "arc rsa2048 i=2 d=filter.example s=arc cv=pass",
        "arc rsa2048 i=3 d=relay.example s=arc cv=pass",
    ),
}
# Beside what bench.house says of sender.example.
ZONE = zone_text("""
_dmarc.sender.example          TXT "v=DMARC1; p=reject"
rsa._domainkey.sender.example  TXT {rsa2048}
ed._domainkey.sender.example   TXT {ed25519}
arc._domainkey.list.example    TXT {rsa2048}
arc._domainkey.filter.example  TXT {rsa2048}
arc._domainkey.relay.example   TXT {rsa2048}
""")


def mails(kind: str, count: int) -> list[bytes]:
    """No two of them are equal."""
    return [
        sign.made([rf"change figures. => figures of {number}.\r\n{_LINE * 160}", *KINDS[kind]])
        for number in range(count)
    ]
