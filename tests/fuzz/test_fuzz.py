"""A short run of `make fuzz`: the same sessions each time, against a real ingest in a process of its own."""

from pathlib import Path

import pytest

from fuzz.campaign import Campaign


@pytest.mark.parametrize("seed", ["1", "2", "3"])
async def test_sessions_of_chance(tmp_path: Path, seed: str) -> None:
    """No exception, no reply that is wrong or ours to blame, nothing lost, doubled or smuggled."""
    campaign = Campaign(seed)
    await campaign.run(tmp_path, range(200))
    assert not [f"{failure.why}\n{failure.dialogue}" for failure in campaign.failures]
    assert campaign.sessions == 200
    assert campaign.mails > 50
