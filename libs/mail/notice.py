"""What deliver and control must agree on of a notice to a domain's contact: its id, and where it goes."""

from base64 import b32encode
from hashlib import sha256


def notice_id(domain: str, cause: str, key: str) -> str:
    """One notice for a domain, a cause and a key (of the daily one: the day), however often it is
    written."""
    text = "\n".join(["notice", domain, cause, key])
    return b32encode(sha256(text.encode()).digest()[:15]).decode().lower()


def is_url(contact: str) -> bool:
    """Is it posted to? Else mail goes there."""
    return contact.startswith("https://")
