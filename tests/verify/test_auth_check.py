"""`backupmx auth check` as a process: what it says, each option, each kind of bad input, batches."""

import asyncio
import json
import os
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libs.mail.records import Action, Verdict
from services.verify.checking import AT_ONCE, LARGE, Checker
from tests.helpers.zone import Zone
from tests.verify import sign
from tests.verify.sign import zone_text
from tests.verify.test_auth_cases import HOSTS, Case, compare, lines, stored

BACKUPMX = Path(sys.executable).with_name("backupmx")
SIGNED = sign.made(["sign ed25519 d=sender.example s=ed h=from:subject"])
ZONE = zone_text("""
sender.example                TXT "v=spf1 ip4:192.0.2.0/24 -all"
ed._domainkey.sender.example  TXT {ed25519}
""")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def ask(*words: str, given: bytes = b"") -> Said:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        BACKUPMX, "auth", "check", *words, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": ""}
    )
    out, err = await process.communicate(given)
    return Said(process.returncode or 0, out.decode(), err.decode())


def at(zone: Zone) -> str:
    return f"{zone.address}:{zone.port}"


def batch(*lines: dict[str, Any] | str) -> bytes:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()


SENT = ("--ip", "192.0.2.1", "--helo", "mail.sender.example", "--mail-from", "bob@sender.example")


async def test_a_message_is_explained(tmp_path: Path) -> None:
    """For people: what was found, why, what we would do and write, and what DNS said. A file with bare line
    feeds is what came over SMTP with CR LF."""
    path = tmp_path / "mail.eml"
    path.write_bytes(SIGNED.replace(b"\r\n", b"\n"))
    async with Zone(ZONE) as zone:
        said = await ask(str(path), *SENT, "--dns", at(zone), "--host", "mx1.backup.example")
    assert (said.code, said.err) == (0, "")
    for line in (
        "SPF of MAIL FROM: pass for sender.example: ip4:192.0.2.0/24",
        "SPF of HELO: none for mail.sender.example: no SPF record",
        "DKIM: pass for sender.example (ed, ed25519-sha256)",
        "Verdict: accept",
        "If it cannot be delivered, its sender is told.",
        "    Authentication-Results: mx1.backup.example;",
        "    sender.example TXT v=spf1 ip4:192.0.2.0/24 -all",
        "    mail.sender.example TXT (nxdomain)",
    ):
        assert line in said.out.splitlines()


async def test_a_message_as_json_from_standard_input() -> None:
    """For programs: one object with the parts that the documentation names."""
    async with Zone(ZONE) as zone:
        said = await ask("-", *SENT, "--dns", at(zone), "--host", HOSTS[0], "--json", given=SIGNED)
    (row,) = said.rows
    assert row["spf"] == {
        "result": "pass",
        "domain": "sender.example",
        "reason": "ip4:192.0.2.0/24",
        "identity": "mailfrom",
        "helo": {"result": "none", "domain": "mail.sender.example", "reason": "no SPF record"},
    }
    assert row["dkim"] == [
        {
            "result": "pass",
            "domain": "sender.example",
            "selector": "ed",
            "algorithm": "ed25519-sha256",
            "reason": "",
        }
    ]
    assert row["verdict"] == {"action": "accept", "reply": "", "may_notify": True, "strip": []}
    assert row["header"].startswith("Authentication-Results: mx1.backup.example;\r\n\tspf=pass ")
    assert {"name": "mail.sender.example", "type": "TXT", "answer": "nxdomain", "records": []} in row["dns"]
    asked = {(each["name"], each["type"]): each["records"] for each in row["dns"]}
    assert asked["sender.example", "TXT"] == ["v=spf1 ip4:192.0.2.0/24 -all"]
    assert asked["ed._domainkey.sender.example", "TXT"][0].startswith("v=DKIM1; k=ed25519; p=")
    assert sorted(zone.questions) == sorted(asked)


async def test_what_decided_is_said() -> None:
    """The term that matched, the lack of one, the mistake in a record, the name that had no answer."""
    zone_of = """
        plain.example   TXT "v=spf1 a:a.example -all"
        open.example    TXT "v=spf1 a:a.example"
        a.example       A 192.0.2.9
        wrong.example   TXT "v=spf1 mo:a.example -all"
        sick.example    !servfail
        round.example   TXT "v=spf1 include:plain.example a:sick.example"
        mx.example      MX 10 a.example
                        MX 20 .
                        TXT "v=spf1 mx ~all"
        other.example   TXT "v=spf1 redirect=plain.example"
    """
    names = ("plain", "open", "wrong", "sick", "round", "other", "mx")
    async with Zone(zone_of) as zone:
        said = await ask(
            "--batch", "--dns", at(zone),
            given=batch(*({"ip": "192.0.2.1", "mail_from": f"bob@{name}.example"} for name in names)),
        )  # fmt: skip
    reasons = [(row["spf"]["result"], row["spf"]["reason"]) for row in said.rows]
    assert reasons[0] == ("fail", "-all")
    assert reasons[1] == ("neutral", "no term matches")
    assert reasons[2][0] == "permerror"
    assert "mo:a.example" in reasons[2][1]
    assert reasons[3] == ("temperror", "no answer for sick.example TXT")
    assert reasons[4] == ("temperror", "no answer for sick.example A")
    assert reasons[5] == ("fail", "-all")
    assert reasons[6] == ("softfail", "~all")
    assert ["10 a.example", "20 ."] in [sorted(each["records"]) for each in said.rows[6]["dns"]]


async def test_what_is_not_told_is_not_checked() -> None:
    """Without a message no DKIM, without a client no SPF, and no verdict without all of it."""
    async with Zone(ZONE) as zone:
        said = await ask(
            "--batch", "--dns", at(zone),
            given=batch(
                {"id": 1, "ip": "192.0.2.1", "helo": "h.example", "mail_from": "bob@sender.example"},
                {"id": "two", "message_b64": b64encode(SIGNED).decode()},
                {"ip": "192.0.2.1", "helo": "sender.example"},
                {"mail_from": "bob@sender.example"},
                {},
                {"ip": "192.0.2.1", "mail_from": "bob@sender.example", "message": SIGNED.decode()},
                {"ip": "192.0.2.1", "mail_from": "<>", "helo": "sender.example", "message": "A: b\n\nx"},
            ),
        )  # fmt: skip
    rows = said.rows
    assert (said.code, said.err) == (0, "")
    assert [sorted(row) for row in rows] == [
        ["dns", "id", "spf"],
        ["arc", "dkim", "dmarc", "dns", "id"],
        ["dns", "spf"],
        ["dns"],
        ["dns"],
        ["arc", "dkim", "dmarc", "dns", "header", "spf", "verdict"],
        ["arc", "dkim", "dmarc", "dns", "header", "spf", "verdict"],
    ]
    assert (rows[0]["id"], rows[1]["id"]) == (1, "two")
    assert rows[1]["dkim"][0]["result"] == "pass"
    assert [row["spf"]["result"] for row in rows if "spf" in row] == ["pass"] * 4
    assert [row["spf"]["identity"] for row in rows if "spf" in row] == [
        "mailfrom",
        "helo",
        "mailfrom",
        "helo",
    ]
    assert rows[6]["dkim"][0]["reason"] == "no From field"


ALIGNED = SIGNED  # d= is the author's domain
UNALIGNED = sign.made(["sign ed25519 d=other.example s=ed h=from:subject"])
SPF_ALONE = {"ip": "192.0.2.1", "mail_from": "bob@sender.example"}
WISHES = zone_text("""
ed._domainkey.other.example   TXT {ed25519}
_dmarc.sender.example         TXT "v=DMARC1; p=reject"
""")
UNKNOWN = "not known without the "


@pytest.mark.parametrize(
    ("message", "told", "said"),
    [
        (ALIGNED, {}, ("pass", ["dkim"], "")),
        (ALIGNED, {"ip": "192.0.2.1", "helo": "sender.example"}, ("pass", ["dkim"], "")),
        (ALIGNED, SPF_ALONE, ("pass", ["spf", "dkim"], "")),
        (UNALIGNED, {}, ("none", [], UNKNOWN + "client")),
        (UNALIGNED, {"mail_from": "bob@sender.example"}, ("none", [], UNKNOWN + "client")),
        (UNALIGNED, {"ip": "192.0.2.1", "helo": "sender.example"}, ("none", [], UNKNOWN + "return path")),
        (UNALIGNED, SPF_ALONE, ("pass", ["spf"], "")),
        (UNALIGNED, {**SPF_ALONE, "ip": "198.51.100.1"}, ("fail", [], "")),
        (UNALIGNED, {"relay": "192.0.2.1", "mail_from": ""}, ("none", [], UNKNOWN + "client")),
    ],
)
async def test_dmarc_with_what_there_is(
    message: bytes, told: dict[str, Any], said: tuple[str, list[str], str]
) -> None:
    """An aligned signature passes whoever brought it; without one and without SPF nothing has failed. HELO
    stands in for the null return path only (RFC 9989 section 3.2.4), not for one that is not told."""
    async with Zone(ZONE + WISHES) as zone:
        given = {**told, "message": message.decode(), "dns": at(zone)}
        [row] = (await ask("--batch", given=batch(given))).rows
    assert (row["dmarc"]["result"], row["dmarc"]["aligned"], row["dmarc"]["reason"]) == said
    assert row["dmarc"]["policy"] == "reject"
    assert ("verdict" in row) is ("mail_from" in told and len(told) == 2)


async def test_a_trusted_relay() -> None:
    """SPF is about the client that it named, or about nobody; the relay itself is never looked at."""
    named = ("--relay", "192.0.2.1", "--mail-from", "bob@sender.example")
    async with Zone(ZONE) as zone:
        nobody = await ask("-", *named, "--dns", at(zone), given=SIGNED)
        client = await ask("-", *named, "--ip", "198.51.100.1", "--dns", at(zone), given=SIGNED)
    assert (
        "SPF of MAIL FROM: none for sender.example: the trusted relay 192.0.2.1 named no client" in nobody.out
    )
    assert "SPF of MAIL FROM: fail for sender.example: -all" in client.out
    assert "as named by the trusted relay 192.0.2.1" in client.out.replace("\n        ", " ")


async def test_the_time_at_which_it_came() -> None:
    """A signature that has ended since was good then; without --at it is judged now."""
    message = sign.made(["sign ed25519 d=sender.example s=ed h=from:subject x=1700000000"])
    async with Zone(ZONE) as zone:
        results = []
        for when in ("2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "1700000001", ""):
            words = ("--at", when) if when else ()
            said = await ask("-", "--dns", at(zone), "--json", *words, given=message)
            results.append((said.rows[0]["dkim"][0]["result"], said.rows[0]["dkim"][0]["reason"]))
    assert results == [("pass", "")] * 2 + [("permerror", "signature expired")] * 2


CASES = 150  # in one batch
EACH = "with --batch each line names its own message, ip, helo, mail_from and the like"
BAD_OPTIONS = [
    ([], "name the file of a message, or - for standard input"),
    (["/nowhere/mail.eml"], "/nowhere/mail.eml: No such file or directory"),
    (["/"], "/: Is a directory"),
    (["-", "--ip", "192.0.2"], "ip must be an IPv4 or IPv6 address, not '192.0.2'"),
    (["-", "--mail-from", "b"], "mail-from must be an address such as bob@sender.example, or <>, not 'b'"),
    (["-", "--helo", "a\nb"], "helo must be one line of printable text, not 'a\\nb'"),
    (["-", "--at", "noon"], "at must be a time such as 2026-11-24T10:00:00Z, not 'noon'"),
    (["-", "--at", "-1"], "at must be a time such as 2026-11-24T10:00:00Z, not '-1'"),
    (["-", "--at", "nan"], "at must be a time such as 2026-11-24T10:00:00Z, not 'nan'"),
    (["-", "--dns", "localhost"], "dns must be address:port, such as 127.0.0.1:53, not 'localhost'"),
    (["-", "--dns", "127.0.0.1:x"], "dns must be address:port, such as 127.0.0.1:53, not '127.0.0.1:x'"),
    (["-", "--host", "a b;c"], "host must be a host name such as mx1.backup.example, not 'a b;c'"),
    (["-", "--host", ""], "host must be a host name such as mx1.backup.example, not ''"),
    (["--batch", "mail.eml"], EACH),
    (["--batch", "--ip", "192.0.2.1"], EACH),
]  # fmt: skip


async def test_bad_input_is_one_sentence() -> None:
    """Nothing on standard output, one sentence on standard error, exit code 2."""
    said = await asyncio.gather(*(ask(*words) for words, _ in BAD_OPTIONS))
    assert said == [(2, "", f"backupmx: {sentence}\n") for _, sentence in BAD_OPTIONS]


BAD_LINES: list[tuple[dict[str, Any] | str, str, Any]] = [
    ("", "the line is no JSON: input data was truncated", None),
    ("{", "the line is no JSON: input data was truncated", None),
    ("\xff", "the line is no JSON: ", None),
    ("[1]", "expected `object`, got `array`", None),
    ("[" * 100_000, "the line is no JSON: ", None),
    ({"id": 5, "mailfrom": "bob@sender.example"}, "object contains unknown field `mailfrom`; known are ", 5),
    ({"id": 6, "ip": 17}, "expected `str | null`, got `int` - at `$.ip`", 6),
    ({"id": 7, "ip": "office"}, "ip must be an IPv4 or IPv6 address, not 'office'", 7),
    ({"id": 8, "mail_from": "bob"}, "mail_from must be an address such as bob@sender.example, or <>,", 8),
    ({"id": 9, "mail_from": "b\nb@sender.example"}, "mail_from must be an address such as ", 9),
    ({"id": 10, "message": "x", "message_b64": "eA=="}, "message and message_b64 are two messages", 10),
    ({"id": 11, "message_b64": "*"}, "message_b64 is no base64", 11),
    ({"id": 12, "message_b64": "ü"}, "message_b64 is no base64", 12),
    ({"id": [1], "at": "noon"}, "at must be a time such as 2026-11-24T10:00:00Z, not 'noon'", [1]),
    ({"id": 15, "relay": "x"}, "relay must be an IPv4 or IPv6 address, not 'x'", 15),
    ({"id": 16, "mail_from": "Bob <bob@sender.example>"}, "mail_from must be an address such as ", 16),
    ({"id": 14, "dns": "there"}, "dns must be address:port, such as 127.0.0.1:53, not 'there'", 14),
]  # fmt: skip


async def test_a_bad_line_is_told_and_the_next_ones_go_on() -> None:
    """Each line has its object in its place: the bad one says what is wrong, and which one it was."""
    good = {"id": "good", "ip": "192.0.2.1", "mail_from": "bob@sender.example"}
    async with Zone(ZONE) as zone:
        given = batch(*(each for bad, _, _ in BAD_LINES for each in (bad, good))).replace(
            b"\xc3\xbf", b"\xff"
        )
        said = await ask("--batch", "--dns", at(zone), given=given)
    assert (said.code, said.err) == (0, "")
    assert len(said.rows) == 2 * len(BAD_LINES)
    for (_, sentence, id_), told, after in zip(BAD_LINES, said.rows[::2], said.rows[1::2], strict=True):
        assert told["error"].startswith(sentence)
        assert told.get("id") == id_
        assert set(told) <= {"id", "error"}
        assert (after["id"], after["spf"]["result"]) == ("good", "pass")


async def test_results_come_in_order_and_at_once() -> None:
    """Slow DNS of one line delays no other's questions, and the order stays; an asker that waits for each
    result before it asks on gets it."""
    zone_of = "".join(f's{n}.example TXT "v=spf1 exists:%{{l}}.s{n}.example -all"\n' for n in range(300))
    async with Zone(f"slow.example !timeout\n{zone_of}") as zone:
        names = ["slow", *(f"s{n}" for n in range(300))]
        given = batch(*({"id": n, "ip": "192.0.2.1", "mail_from": f"b@{n}.example"} for n in names))
        said = await ask("--batch", "--dns", at(zone), given=given)
        assert [row["id"] for row in said.rows] == names
        assert [row["spf"]["result"] for row in said.rows] == ["temperror", *["fail"] * 300]

        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            BACKUPMX, "auth", "check", "--batch", "--dns", at(zone), stdin=pipe, stdout=pipe
        )
        assert process.stdin
        assert process.stdout
        for n in range(3):
            process.stdin.write(batch({"id": n, "ip": "192.0.2.1", "mail_from": "b@s1.example"}))
            assert json.loads(await process.stdout.readline())["id"] == n
        process.stdin.close()
        assert await process.wait() == 0


async def test_who_waits_for_each_result_may_change_his_zone() -> None:
    """Nothing is remembered of DNS from one message to the next, if the first one has ended."""
    pipe = asyncio.subprocess.PIPE
    async with Zone(ZONE) as zone:
        process = await asyncio.create_subprocess_exec(
            BACKUPMX, "auth", "check", "--batch", stdin=pipe, stdout=pipe
        )
        assert process.stdin
        assert process.stdout
        results = []
        for policy in ("-all", "~all", "?all", "+all"):
            zone.set(f'sender.example TXT "v=spf1 {policy}"')
            process.stdin.write(batch({**SPF_ALONE, "dns": at(zone)}))
            results.append(json.loads(await process.stdout.readline())["spf"]["result"])
        process.stdin.close()
        assert await process.wait() == 0
    assert results == ["fail", "softfail", "neutral", "pass"]


@pytest.mark.parametrize(("octets", "most"), [(2 * LARGE, 2), (10, 2 * AT_ONCE + 2)])
async def test_large_lines_are_read_one_by_one(octets: int, most: int) -> None:
    """A batch of mails of 50 MiB takes the memory of one or two, and of small ones that of some dozens."""
    told: list[Any] = []
    ahead = []

    async def given() -> AsyncIterator[bytes]:
        for number in range(400 if octets < LARGE else 8):
            ahead.append(number - len(told))
            yield batch({"id": number, "message": "From: a\n\n" + "x" * octets})

    checker = Checker(["mx1.backup.example"], (("127.0.0.1", 1),), lambda _: (), timeout_s=1, within_s=1)
    await checker.batch(given(), lambda row: told.append(row["id"]))
    await checker.close()
    assert told == list(range(len(ahead)))
    assert max(ahead) <= most


async def test_it_ends_when_nobody_reads_on() -> None:
    """As in `| head -1`: no traceback, though there may be lines to come."""
    pipe = asyncio.subprocess.PIPE
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        BACKUPMX, "auth", "check", "--batch", stdin=pipe, stdout=writing, stderr=pipe
    )
    os.close(writing)
    assert process.stdin
    assert process.stderr
    process.stdin.write(b"{}\n")
    with os.fdopen(reading, "rb") as said:
        assert await asyncio.to_thread(said.readline) == b'{"dns":[]}\n'
    process.stdin.write(b"{}\n" * 10)
    assert await process.wait() == 1
    assert await process.stderr.read() == b""


async def test_a_large_message_goes_through_the_pool() -> None:
    """A message of 3 MB is checked in a process of its own, as in the service."""
    message = sign.made(["sign ed25519 d=sender.example s=ed h=from"])
    body = b"x" * 70 + b"\r\n"
    async with Zone(ZONE) as zone:
        said = await ask("-", *SENT, "--dns", at(zone), "--json", given=message + body * 40_000)
    assert [(each["result"], each["reason"]) for each in said.rows[0]["dkim"]] == [
        ("fail", "body has changed")
    ]


async def test_nothing_in_a_message_or_in_dns_steers_a_terminal() -> None:
    """An escape sequence of a stranger is shown as question marks."""
    message = SIGNED.replace(b"d=sender.example", b"d=\x1b[2J")
    zone_of = 'sender.example TXT "v=spf1 a:\\027[2J.example -all"\n'
    async with Zone(zone_of) as zone:
        said = await ask("-", *SENT, "--dns", at(zone), given=message)
    assert said.code == 0
    assert "\x1b" not in said.out
    assert "?[2J" in said.out


def line_of(case: Case, zone: Zone) -> dict[str, Any]:
    given = dict(lines(case)[0])
    told = {"id": case.name, "message_b64": b64encode(case.message).decode(), "dns": at(zone)}
    told |= {"mail_from": given["from"], "relay": given.get("relay")}
    told |= {name: given[key] for name, key in (("ip", "client"), ("helo", "helo")) if given[key] != "-"}
    return (
        told
        | {"at": float(given.get("now", 1_800_000_000)), "enforce": given.get("enforce", "off")}
        | {"trusted": given.get("trusted", "").split()}
    )


@pytest.mark.parametrize("first", range(0, len(stored()), CASES))
async def test_the_case_files_through_the_command(first: int) -> None:
    """Each case file, its DNS at a port of its own, many in one batch: what the service would say."""
    cases = stored()[first : first + CASES]
    async with AsyncExitStack() as stack:
        zones = [await stack.enter_async_context(Zone(zone_text(case.dns))) for case in cases]
        hosts = (word for host in HOSTS for word in ("--host", host))
        said = await ask("--batch", *hosts, given=batch(*map(line_of, cases, zones)))
    assert (said.code, said.err) == (0, "")
    assert [row["id"] for row in said.rows] == [case.name for case in cases]
    for case, row in zip(cases, said.rows, strict=True):
        agree(case, row)


def agree(case: Case, row: dict[str, Any]) -> None:
    """What the command said of a case is what the case file says."""
    above, below = lines(case)
    if "relay" not in dict(above) and dict(above)["client"] == "-":
        assert "verdict" not in row
        return
    below = [(keyword, rest) for keyword, rest in below if keyword != "received-spf"]
    strip = tuple((start, end) for start, end in row["verdict"]["strip"])
    action, may_notify = Action(row["verdict"]["action"]), row["verdict"]["may_notify"]
    code, _, reply = row["verdict"]["reply"].partition(" ")
    assert code == {Action.ACCEPT: "", Action.REJECT: "550"}[action]
    fields = row["header"].encode()
    compare(case, Verdict("id1", action, fields, may_notify, strip, reply=reply), below)
