"""Makes the signed messages of the case files from the recipes in their .result files, with dkimpy's signer.

    python -m tests.verify.sign        writes every NNN-name.msg whose .result has a recipe

A recipe is the lines of these keywords above the `---` of a .result, applied in order:

    message                            start from MESSAGE (this line may be left out)
    author VALUE                       another value of the From field
    field Name: value                  put a field on top
    sign KEY tag=value ...             sign with keys/KEY and put the field on top; the tags d= s= c= a= i= x=
                                       q= v= h= as in the field, `l=whole`, `l=N`
    signed KEY VALUE                   sign with keys/KEY and put the field with this VALUE on top, its `@bh`
                                       and `@b` filled in: what no signer would write
    arc KEY tag=value ...              seal with keys/KEY and put the ARC Set on top; h= c= l= x= of its
                                       message signature, the other tags as in seals.py
    change OLD => NEW                  replace octets (\\r \\n \\t \\xNN as written)
"""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import dkim
from dkim.crypto import parse_pem_private_key
from nacl.encoding import Base64Encoder
from nacl.signing import SigningKey

from tests.verify.seals import arc_set, signed

CASES = Path(__file__).parent / "cases"
FOLDERS = ("auth", "spf", "dkim", "dmarc", "arc")  # case files of authentication
KEYS = CASES / "auth" / "keys"
RECIPE = ("message", "author", "field", "sign", "signed", "arc", "change")
AUTHOR = b"Bob <bob@sender.example>"
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t"}
MESSAGE = (
    b"From: " + AUTHOR + b"\r\n"
    b"To: ann@office.example\r\n"
    b"Subject: The  quarterly\r\n"
    b"\tfigures\r\n"
    b"Date: Fri, 15 Jan 2027 07:59:00 +0000\r\n"
    b"Message-ID: <1@sender.example>\r\n"
    b"\r\n"
    b"Dear Ann,\r\n"
    b"\r\n"
    b"here are the  figures. \r\n"
    b"\r\n"
    b"\r\n"
)


def made(recipe: list[str]) -> bytes:
    """The message of a recipe. Raises ValueError for an unknown line."""
    message = MESSAGE
    for line in recipe:
        keyword, _, rest = line.partition(" ")
        if keyword == "message":
            message = MESSAGE
        elif keyword == "author":
            message = message.replace(AUTHOR, _octets(rest))
        elif keyword == "field":
            message = _octets(rest) + b"\r\n" + message
        elif keyword == "sign":
            key, *tags = rest.split()
            message = _signature(message, key, dict(tag.split("=", 1) for tag in tags)) + message
        elif keyword == "signed":
            key, _, value = rest.partition(" ")
            message = _filled(message, key, _octets(value)) + message
        elif keyword == "arc":
            key, *tags = rest.split()
            message = _arc_set(message, key, dict(tag.split("=", 1) for tag in tags)) + message
        elif keyword == "change":
            old, new = (_octets(part) for part in rest.split(" => "))
            if old not in message:
                raise ValueError(f"{line!r}: the message has no {old!r}")
            message = message.replace(old, new)
        else:
            raise ValueError(f"{line!r}: known are {', '.join(RECIPE)}")
    return message


def _octets(text: str) -> bytes:
    def octets(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else _ESCAPED[match[2]]

    return re.sub(rb"\\(?:x([0-9a-f]{2})|([rnt]))", octets, text.encode())


def _signature(message: bytes, key: str, tags: dict[str, str], name: bytes = b"DKIM-Signature") -> bytes:
    """The field, made by dkimpy's hashing and signing with the tags that are wanted."""
    algorithm = tags.get("a", _algorithm(key)).encode()
    signer = dkim.DKIM(message, signature_algorithm=algorithm)
    signer.hasher = dkim.HASH_ALGORITHMS[algorithm]
    policy = dkim.CanonicalizationPolicy.from_c_value(tags.get("c", "relaxed/relaxed").encode())
    body = policy.canonicalize_body(signer.body)
    limit = len(body) if tags.get("l", "whole") == "whole" else int(tags["l"])
    names = tags.get("h", "from:to:subject:date:message-id").encode()
    if name == b"DKIM-Signature":
        first, more = ("v", "1"), ("d", "i", "q", "s", "x")
    else:  # i= is the instance there
        first, more = ("i", tags["i"]), ("d", "q", "s", "x")
    fields = [(first[0].encode(), tags.get(*first).encode()), (b"a", algorithm), (b"c", policy.to_c_value())]
    fields += [(each.encode(), tags[each].encode()) for each in more if each in tags]
    if "l" in tags:
        fields.append((b"l", str(limit).encode()))
    digest = b64encode(signer.hasher(body[:limit]).digest())
    fields += [(b"h", names), (b"bh", digest), (b"b", b"0" * 60)]
    value = signer.gen_header(fields, names.split(b":"), policy, name, _private(key))
    return name + b": " + bytes(value)


def _algorithm(key: str) -> str:
    return "ed25519-sha256" if key == "ed25519" else "rsa-sha256"


def _arc_set(message: bytes, key: str, tags: dict[str, str]) -> bytes:
    tags = {"i": "1", **tags}
    signature = _signature(message, key, tags, b"ARC-Message-Signature")
    return arc_set(message, _private(key), tags, _algorithm(key), signature)


def _filled(message: bytes, key: str, value: bytes) -> bytes:
    """The field whose value is `value`: signed with the tags that it has (RFC 6376 section 3.7)."""
    tags = dict(re.findall(rb"\s*(\w+)\s*=\s*([^;]*?)\s*(?:;|\Z)", value))
    policy = dkim.CanonicalizationPolicy.from_c_value(tags.get(b"c", b"simple/simple"))
    headers, body = dkim.rfc822_parse(message)
    body = policy.canonicalize_body(body)[: int(tags[b"l"]) if b"l" in tags else None]
    value = value.replace(b"@bh", b64encode(sha256(body).digest()))
    names = [name.strip().lower() for name in tags[b"h"].split(b":")]
    own = [(b"DKIM-Signature", b" " + re.sub(rb"\s*@b\s*", b"", value) + b"\r\n")]
    chosen = policy.canonicalize_headers(dkim.select_headers(headers, names) + own)
    text = b"".join(name + b":" + each for name, each in chosen)
    return b"DKIM-Signature: " + value.replace(b"@b", signed(text, _private(key))) + b"\r\n"


def _private(key: str) -> object:
    if key == "ed25519":
        return SigningKey((KEYS / "ed25519.seed").read_bytes().strip(), Base64Encoder)
    return parse_pem_private_key((KEYS / f"{key}.pem").read_bytes())


def recipe(result: str) -> list[str]:
    """The recipe lines of a .result text; none where the message is written by hand."""
    head = result.split("\n---\n")[0].splitlines()
    return [line for line in head if line.split(" ")[0] in RECIPE]


def zone_text(text: str) -> str:
    """Key records put in, in strings of at most 255 octets."""

    def record(match: re.Match[str]) -> str:
        key, mark, more = match.groups(default="")
        whole = (KEYS / f"{key}.txt").read_text().strip()
        if mark == "=":
            whole = more.replace("@", whole.rpartition("p=")[2])
        else:
            whole += mark + more
        return " ".join(f'"{whole[at : at + 255]}"' for at in range(0, len(whole), 255))

    return re.sub(r"\{((?:rsa|ed)\d+)(?:([;=])([^}]*))?\}", record, text)


def main() -> None:
    for path in sorted(path for folder in FOLDERS for path in (CASES / folder).glob("*.result")):
        if lines := recipe(path.read_text()):
            path.with_suffix(".msg").write_bytes(made(lines))


if __name__ == "__main__":
    main()
