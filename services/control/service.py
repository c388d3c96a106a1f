"""control: the relay domains, what a person asks for, and what people see."""

import asyncio

from libs.runtime.deps import Deps
from libs.runtime.http import serving, unix_socket
from libs.runtime.run import CannotStart, Life
from services.control.api import application
from services.control.desk import Desk
from services.control.door import SOCKET
from services.control.hooks import Hooks
from services.control.rounds import Rounds

TEND_S = 1.0


async def control(deps: Deps, life: Life) -> None:
    """Follow the topics; once they are read, answer on the socket and tend what is pending, until drained.

    Raises CannotStart when the socket cannot be made."""
    desk = Desk(deps)
    path = deps.config.state_directory / SOCKET
    async with asyncio.TaskGroup() as group:
        followers = (*desk.followers(), desk.notices.facts.run())
        tasks = [group.create_task(each) for each in followers]
        await desk.restored()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = unix_socket(path)
        except OSError as error:
            raise CannotStart(f"{path}: {error.strerror or error}") from error
        async with deps.log.own("control", desk.register.claims), serving(application(desk), listener):
            hooks = Hooks(deps, desk.register, desk.notices.memory)
            rounds = Rounds(
                deps, desk.register, desk.rolls, desk.notices.facts, desk.checkups, desk.consulting
            )
            for each in (_tend(desk, life), hooks.run(), rounds.run()):
                tasks.append(group.create_task(each))
            life.ready()
            await life.must_drain.wait()
        path.unlink(missing_ok=True)
        for task in tasks:
            task.cancel()


async def _tend(desk: Desk, life: Life) -> None:
    """For ever: what goes on by itself. A log that is away is no reason to start this process anew."""
    while True:
        await desk.register.tend()
        await desk.notices.tend()
        await desk.removing.tend()
        life.progress()
        await asyncio.sleep(TEND_S)
