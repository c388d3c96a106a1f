"""A session as it was, in the form of a case file (tests/ingest/cases/README)."""

from collections.abc import Iterable

from fuzz.furniture import KNOWN, MAX_ERRORS, SMALL_SIZE, UNKNOWN

_NAMED = {13: "\\r", 10: "\\n", 9: "\\t", 92: "\\\\"}
_HEAD = f"""\
relay office.example
relay small.example max_size={SMALL_SIZE}
relay waiting.example pending
relay rest.example suspended
set smtp.max_errors {MAX_ERRORS}
set defaults.max_size 65536
"""


def written(seed: str, number: int, why: str, said: Iterable[tuple[str, bytes]]) -> str:
    """`why`: what is wrong; it becomes the comment. A handshake cannot be played from a file."""
    lines = [
        f"# make fuzz SEED={seed} SESSION={number}" + (f": {why}" if why else ""),
        _HEAD + _known(),
        "---",
    ]
    for who, octets in said:
        match who:
            case "S":
                lines.append(
                    f"S: {octets.decode('utf-8', 'backslashreplace').removesuffix(chr(10)).rstrip(chr(13))}"
                )
            case "C":
                lines.append(f"C< {escaped(octets)}")
            case _:
                lines.append("# here TLS begins")
    return "\n".join([*lines, "---", ""])


def escaped(octets: bytes) -> str:
    """What `C<` takes; runs of one octet stay as long as they are."""
    return "".join(
        _NAMED.get(each) or (chr(each) if 32 <= each < 127 else f"\\x{each:02x}") for each in octets
    )


def _known() -> str:
    return "\n".join(
        f"known {name}@{domain} {what}"
        for domain in ("office.example", "small.example")
        for names, what in ((KNOWN, "deliverable"), (UNKNOWN, "undeliverable"))
        for name in names
    )
