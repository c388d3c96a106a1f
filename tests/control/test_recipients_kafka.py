"""`domain recipients` over Kafka: control and verify are processes of their own."""

from pathlib import Path

import pytest

from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

pytestmark = pytest.mark.xdist_group("broker")

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
"""
ANN, EVE = "ann@office.example", "eve@office.example"


async def test_recipients_over_kafka(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Imported, allowed, forgotten; each command sees what verify made of it."""
    file = tmp_path / "list"
    file.write_text(f"{ANN}\n{EVE}\n")
    async with Zone(ZONE) as zone, Primary(address="127.0.0.2", known={ANN}) as primary:
        running = Running(tmp_path, dns=zone.servers, dial_port=primary.port, kafka=broker)
        running.names = ("verify", "control")
        async with running:
            assert (await running.ask("domain", "add", "office.example")).code == 0
            said = await running.ask("domain", "recipients", "import", "office.example", str(file))
            assert said == (0, "office.example: 2 imported: 1 deliverable, 1 undeliverable\n", "")
            said = await running.ask("domain", "recipients", "allow", "office.example", EVE)
            assert said == (0, f"{EVE} is allowed.\n", "")
            said = await running.ask("domain", "recipients", "export", "office.example")
            assert said == (0, f"{ANN}\n{EVE}\n", "")
            assert (await running.ask("domain", "recipients", "forget", "office.example", "--all")).code == 0
            assert (await running.ask("domain", "recipients", "export", "office.example")).out == ""
