"""Our DSNs, read by Sisimai, which takes apart the bounces of more than a hundred mail systems, in Perl."""

import json
import subprocess
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

NOTICES = sorted((Path(__file__).parent.parent / "deliver/cases").glob("*.eml"))
READ = 'my $found = Sisimai->dump($ARGV[0], "delivered" => 1); print defined $found ? $found : "[]";'


def status(notice: Path) -> list[dict[str, str]]:
    """The fields of each recipient, as Python reads them."""
    report = message_from_bytes(notice.read_bytes(), policy=policy.default)
    assert isinstance(report, EmailMessage)
    _, part, _ = report.iter_parts()
    _, *groups = part.get_payload()
    return [{name: " ".join(str(value).split()) for name, value in group.items()} for group in groups]


@pytest.mark.parametrize("notice", NOTICES, ids=lambda notice: notice.stem)
def test_a_notice_is_taken_apart(notice: Path, unpacked: Callable[[str], Path]) -> None:
    """Each recipient with action, status and reply, whose mail it was and which: as Python reads them."""
    root = unpacked("sisimai")
    modules = [root / "usr/share/perl5", *root.glob("usr/lib/*/perl5/5.*")]
    command = ["perl", *(f"-I{each}" for each in modules), "-MSisimai", "-e", READ, str(notice)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    if b"global-delivery-status" in notice.read_bytes():
        assert found == []  # it knows nothing of RFC 6533: the notice says nothing false to it
        return
    wanted = status(notice)
    assert len(found) == len(wanted)
    for one, fields in zip(found, wanted, strict=True):
        assert one["recipient"] == fields["Final-Recipient"].removeprefix("rfc822; ")
        assert (one["action"], one["deliverystatus"]) == (fields["Action"], fields["Status"])
        assert one["diagnosticcode"] == fields.get("Diagnostic-Code", "").removeprefix("smtp; ")
        assert one["addresser"] == "eve@sender.example"
        assert one["messageid"] == "1@sender.example"
        if "Remote-MTA" in fields:
            assert one["rhost"] == fields["Remote-MTA"].removeprefix("dns; ")
