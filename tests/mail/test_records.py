"""The golden records: what a version has written, all later ones read."""

import json
from pathlib import Path

import msgspec
import pytest

from libs.mail import records
from libs.mail.codec import decode

FOLDER = Path(__file__).parent / "cases" / "records"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.record")), ids=lambda path: path.stem)
def test_record(path: Path) -> None:
    """Each case file's own rule (its first line). What a record does not say is not in it, either."""
    above, _, below = path.read_text().partition("---\n")
    rule, type_, octets = above.splitlines()
    assert rule.startswith("# ")
    record = decode(bytes.fromhex(octets), getattr(records, type_))
    told = msgspec.to_builtins(record, builtin_types=(bytes,))
    assert json.loads(json.dumps(told, default=bytes.decode)) == json.loads(below)
