"""The command `selfcheck`: is this host as strangers and primaries expect it?"""

import asyncio

import typer

from libs.runtime import our_hosts
from libs.runtime import selfcheck as looking
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.runtime.our_hosts import Check
from libs.runtime.terminal import AsJson, fail, print_rows
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured


def selfcheck(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """See whether our hosts are right in DNS, this one's addresses and certificate, too; no service need run.

    Exit code 1 where something is wrong. Example: backupmx selfcheck --json"""
    try:
        found = asyncio.run(_checks(configured(config)))
    except looking.Unreadable as error:
        fail(str(error), 1)
    if json:
        print_rows(found)
    else:
        for each in found:
            print(f"{'+' if each.right else 'X'} {each.host}: {each.says}")
    raise typer.Exit(0 if all(each.right for each in found) else 1)


async def _checks(config: Config) -> tuple[Check, ...]:
    clock = SystemClock()
    servers = [(at.address, at.port) for at in config.dns.servers]
    dns = Dns(servers, clock, config.dns.timeout_s)
    try:
        hosts, here = await asyncio.gather(looking.hosts(config, dns), looking.here(config, dns))
    finally:
        await dns.close()
    return our_hosts.checks(hosts, here, clock.wall())
