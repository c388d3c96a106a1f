"""A notice as it is posted to a URL: JSON, signed as version 1 of Standard Webhooks (standardwebhooks.com).

Whoever gets it verifies `webhook-signature` with the domain's secret, and knows by `webhook-id` what he had.
"""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from typing import NamedTuple
from urllib.parse import urlsplit

from libs.mail.address import BadAddress, domain_name
from libs.mail.notice import notice_id
from libs.mail.records import Language, Notify

GIVE_UP_S = 86_400.0  # a post that nobody took is given up after this
FIRST_S, LONGEST_S = 30.0, 3600.0
SECRET = "whsec_"
SECRET_OCTETS = (24, 64)
_LONGEST = 500


class Post(NamedTuple):
    """What is sent; `headers` without those of HTTP itself."""

    body: bytes
    headers: Mapping[str, str]


def url(text: str) -> str:
    """`text`, which may be posted to: https, a host by name, no user. Raises ValueError."""
    parts = urlsplit(text)
    try:
        labels = domain_name(parts.hostname or "").split(".")
    except BadAddress as error:
        raise ValueError(text) from error
    named = len(labels) > 1 and not labels[-1].isdigit() and parts.port != 0
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= _LONGEST
    if parts.scheme != "https" or not named or "@" in parts.netloc or parts.fragment or not plain:
        raise ValueError(text)
    return text


def key(secret: str) -> bytes:
    """The octets of a secret, `whsec_` and 24 to 64 octets in base64. Raises ValueError."""
    if not secret.startswith(SECRET):
        raise ValueError("a secret begins with whsec_")
    try:
        octets = b64decode(secret.removeprefix(SECRET), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if not SECRET_OCTETS[0] <= len(octets) <= SECRET_OCTETS[1]:
        raise ValueError(f"a secret has {SECRET_OCTETS[0]} to {SECRET_OCTETS[1]} octets")
    return octets


def secret(octets: bytes) -> str:
    """The secret that these random octets make."""
    return SECRET + b64encode(octets).decode()


def checked(text: str) -> str:
    """`text`, a secret. Raises ValueError."""
    key(text)
    return text


def post(request: Notify, host: str, language: Language, secret: str, now: float) -> Post:
    """`request`, said by `host` at `now` (wall seconds). Raises ValueError for no secret."""
    id_ = notice_id(request.domain, request.cause, request.key)
    said = {
        "type": f"notice.{request.cause}",
        "timestamp": moment(now),
        "data": {
            "id": id_,
            "domain": request.domain,
            "cause": request.cause,
            "since": moment(request.since),
            "host": host,
            "language": language.value,
            "subject": request.subject,
            "text": request.text,
            "details": {
                name: moment(value) if isinstance(value, float) else value
                for name, value in request.details.items()
            },
        },
    }
    body = json.dumps(said, ensure_ascii=False).encode()
    stamp = f"{now:.0f}"
    signed = b".".join((id_.encode(), stamp.encode(), body))
    signature = b64encode(digest(key(secret), signed, sha256)).decode()
    return Post(
        body,
        {
            "content-type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{signature}",
        },
    )


def again_s(tries: int) -> float:
    """The pause after that many tries in vain."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 16))


def moment(seconds: float) -> str:
    """RFC 3339, in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
