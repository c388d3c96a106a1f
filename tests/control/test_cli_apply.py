"""`domain apply` and `domain export` by the real command: over both logs, and for thousands."""

import time
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

MANY = 500
ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    shop.example         MX 10 mail.office.example
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""
FILE = """\
[domains."Office.Example"]
contact = "owner@elsewhere.example"
max_size = 70000

[domains."shop.example"]
"""


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
async def test_declared_changed_and_pruned(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """A dry run does nothing; what is applied is exported and applied again without a change; what mail waits
    for is not removed."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    file, other = tmp_path / "domains.toml", tmp_path / "only.csv"
    file.write_text(FILE)
    other.write_text("domain\nshop.example\n")
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(
            tmp_path / "run", dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka
        ) as running,
    ):
        said = await running.ask("domain", "apply", str(file), "--dry-run")
        assert said.out == (
            "+ office.example  contact=owner@elsewhere.example  max_size=70000\n+ shop.example\n"
            "2 domains to be added, 0 changed, 0 removed, 0 as they were\n"
        )
        assert (await running.ask("domain", "list", "--json")).rows == []
        said = await running.ask("domain", "apply", str(file))
        assert (said.code, said.out.splitlines()[-1]) == (
            0,
            "2 domains added, 0 changed, 0 removed, 0 as they were",
        )
        states = {row["domain"]: row["state"] for row in (await running.ask("domain", "list", "--json")).rows}
        assert states == {"office.example": "active", "shop.example": "pending"}
        file.write_text((await running.ask("domain", "export")).out)
        said = await running.ask("domain", "apply", str(file), "--prune", "--json")
        assert (said.rows[0]["add"], said.rows[0]["change"], said.rows[0]["unchanged"]) == ({}, [], 2)

        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith("250")
            await primary.got(1)
            await primary.down()
            assert (await client.mail("ann@office.example")).startswith("250")
        said = await running.ask("domain", "apply", str(other), "--prune", "--yes")
        assert (said.code, said.out.splitlines()[0]) == (
            1,
            "! office.example: 1 mail waits, it is not removed",
        )
        await primary.up()
        await running.ask("queue", "flush", "office.example")
        await primary.got(2)
        await running.until(lambda: len(running.events("Delivery")) == 2)
        said = await running.ask("domain", "apply", str(other), "--prune")
        assert (said.code, said.err) == (1, "remove 1 domain? [y/N] backupmx: nothing was done\n")
        said = await running.ask("domain", "apply", str(other), "--prune", "--yes")
        assert said.out == "- office.example\n0 domains added, 0 changed, 1 removed, 1 as they were\n"
        names = [row["domain"] for row in (await running.ask("domain", "list", "--json")).rows]
        assert names == ["shop.example"]


async def test_very_many(tmp_path: Path) -> None:
    """All of an ISP's customers in one file, each looked up in DNS; the register is whole afterwards."""
    file = tmp_path / "many.csv"
    file.write_text("domain\n" + "".join(f"d{number}.example\n" for number in range(MANY)))
    async with (
        Zone("\n".join(f"d{number}.example MX 10 mail.office.example" for number in range(MANY))) as zone,
        Running(tmp_path / "run", dns=zone.servers, dial_port=2525, activation="dns") as running,
    ):
        began = time.monotonic()
        said = await running.ask("domain", "apply", str(file))
        print(f"{MANY} domains applied in {time.monotonic() - began:.1f} s")
        assert said.out.splitlines()[-1] == f"{MANY} domains added, 0 changed, 0 removed, 0 as they were"
        said = await running.ask("domain", "add", "one.more.example")
        assert said.code == 0, said.err


async def test_wrong_use(tmp_path: Path) -> None:
    """The file and what is wrong with it; exit code 2, nothing asked."""
    running = Running(tmp_path / "run", dns=[("127.0.0.1", 53)], dial_port=25)
    (tmp_path / "empty").mkdir()
    bad = tmp_path / "bad.toml"
    bad.write_text("[domains.x]\n")
    twice = tmp_path / "twice"
    twice.mkdir()
    (twice / "a.csv").write_text("domain\na.example\n")
    (twice / "b.csv").write_text("domain\nA.example\n")
    try:
        for source, sentence in (
            (tmp_path / "none.toml", f"{tmp_path}/none.toml: No such file or directory"),
            (tmp_path / "none.txt", f"{tmp_path}/none.txt: it is neither .toml nor .csv"),
            (tmp_path / "empty", f"{tmp_path}/empty: there is no .toml and no .csv file"),
            (bad, f"{bad}: 'x' is no domain name that can receive mail from everywhere"),
            (twice, f"{twice}/b.csv: a.example is in another file, too"),
        ):
            said = await running.ask("domain", "apply", str(source))
            assert said == (2, "", f"backupmx: {sentence}\n")
        said = await running.ask("domain", "export", "--format", "xml")
        assert said == (2, "", "backupmx: format must be toml or csv, not 'xml'\n")
    finally:
        await running.close()


async def test_the_domains_of_a_postfix(tmp_path: Path) -> None:
    """Read from its main.cf, with what lies beside it; notes are no output. Two sources are one too many."""
    main_cf = tmp_path / "main.cf"
    main_cf.write_text("relay_domains = hash:/nowhere/relay\ntransport_maps = hash:/nowhere/transport\n")
    (tmp_path / "relay").write_text("office.example x\n.office.example x\n")
    (tmp_path / "transport").write_text("office.example smtp:[mail.office.example]:2525\n")
    async with Running(tmp_path / "run", dns=[("127.0.0.1", 1)], dial_port=1) as running:
        said = await running.ask("domain", "apply", "--from-postfix", str(main_cf))
        assert (said.code, said.out) == (
            0,
            "+ office.example  primary_host=mail.office.example:2525\n"
            "1 domain added, 0 changed, 0 removed, 0 as they were\n",
        )
        assert said.err == "note: .office.example: subdomains are added one by one\n"
        said = await running.ask("domain", "apply", str(main_cf), "--from-postfix", str(main_cf))
        assert said.code == 2
        main_cf.write_text("relay_domains = ldap:x\n")
        said = await running.ask("domain", "apply", "--from-postfix", str(main_cf))
        assert (said.code, said.err) == (
            2,
            f"backupmx: {main_cf}: relay_domains: a table of type ldap cannot be read here: "
            "write it as texthash\n",
        )
