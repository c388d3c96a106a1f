"""Ownership of partition numbers through Kafka's consumer groups.

Shell: sockets and tasks. Membership only: aiokafka's coordinator joins, and each request it sends to the
group's broker passes through `Membership._send`, which learns from the answers what is assigned and when a
good heartbeat was *sent* (aiokafka keeps only when the answer came, and counts "rebalance in progress" as
good).

While a group is rebalanced nobody knows yet who keeps what. A member's claims outlive its JoinGroup by
LIMBO_S at most; whoever is given partitions in company waits LIMBO_S after the group was complete before it
gains them. So a number is never held twice, and a claim whose number comes back in time never ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiokafka import errors
from aiokafka.client import CloseReason, ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from libs.log.contract import Claim, NotOwner, Owner, Unavailable
from libs.log.kafka_client import Client
from libs.runtime.clock import Clock

SESSION_S = 10.0
HEARTBEAT_S = 1.0
HELD_S = SESSION_S / 2
LIMBO_S = 2.0
JOIN_S = SESSION_S + 2.0  # a JoinGroup waits for the slowest member, at most for the session
ANSWER_S = 2.0
CLOSE_S = 0.5
WATCH_S = 0.1
RETRY_S = 0.25
START_S = 8.0
FOR_EVER_MS = 2**31 - 1

_LOST = (errors.UnknownMemberIdError, errors.IllegalGenerationError)


class KafkaClaim:
    """See the contract. `held` asks the membership; a claim that was once not held is over."""

    def __init__(self, group: str, partition: int, membership: "Membership") -> None:
        self.group, self.partition, self.membership = group, partition, membership
        self._over = False

    def held(self) -> bool:
        self._over = self._over or not self.membership.holds(self)
        return not self._over


class Membership:
    """One member of `group`; `topic` (Kafka's name) is only there to have its numbers shared out."""

    def __init__(
        self, bootstrap: Sequence[str], group: str, kafka_group: str, topic: str, owner: Owner, clock: Clock
    ) -> None:
        self._bootstrap, self._group, self._kafka_group, self._topic = bootstrap, group, kafka_group, topic
        self._owner, self._clock = owner, clock
        self._client: Any = None
        self._coordinator: Any = None
        self._claims: dict[int, KafkaClaim] = {}
        self._assigned: frozenset[int] = frozenset()
        self._good = float("-inf")  # when the last request that proved the membership was sent
        self._joined_at: float | None = None  # first JoinGroup sent since the last assignment: limbo
        self._gain_at = float("-inf")  # before this, another member may still hold what we were given
        self.broken: Exception | None = None  # what a callback of the owner raised

    def holds(self, claim: KafkaClaim) -> bool:
        """Without I/O: is it of the present assignment, and proved recently enough?"""
        now = self._clock.mono()
        if self._claims.get(claim.partition) is not claim or claim.partition not in self._assigned:
            return False
        if self._joined_at is not None and now - self._joined_at >= LIMBO_S:
            return False
        return now - self._good < HELD_S

    async def run(self) -> None:
        """Be a member, for ever: join, watch, and start again from nothing after trouble."""
        while True:
            try:
                await self._connect()
                while True:
                    await asyncio.sleep(WATCH_S)
                    self._coordinator.check_errors()
                    self._tell()
                    if self.broken is not None:
                        raise self.broken
            except (errors.KafkaError, OSError, TimeoutError):
                await self._disconnect(leave=False)
                await asyncio.sleep(RETRY_S)

    async def leave(self) -> None:
        """Give everything up, then leave the group."""
        self._forget()
        await self._disconnect(leave=True)

    async def _connect(self) -> None:
        self._client = Client(self._bootstrap, self._group, int(JOIN_S * 1000))
        async with asyncio.timeout(START_S):
            await self._client.bootstrap()
            await self._client.set_topics([self._topic])
        subscription = SubscriptionState()
        self._coordinator = GroupCoordinator(
            self._client,
            subscription,
            group_id=self._kafka_group,
            session_timeout_ms=int(SESSION_S * 1000),
            rebalance_timeout_ms=int(SESSION_S * 1000),
            heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
            retry_backoff_ms=50,
            enable_auto_commit=False,
            assignors=(RangePartitionAssignor,),
            max_poll_interval_ms=FOR_EVER_MS,  # nothing is consumed here; liveness is proved by heartbeats
        )
        self._send_request = self._coordinator._send_req
        self._coordinator._send_req = self._send
        subscription.subscribe({self._topic})

    async def _disconnect(self, *, leave: bool) -> None:
        """May be cancelled; called again, it ends what is left."""
        self._forget()
        if self._coordinator is not None:
            await _end(self._coordinator, leave=leave)
            self._coordinator = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _send(self, request: Any) -> Any:
        """aiokafka's coordinator asks; we look at the question before and at the answer after."""
        sent = self._clock.mono()
        if isinstance(request, LeaveGroupRequest):
            self._forget()
        joining = isinstance(request, JoinGroupRequest)
        if joining and self._joined_at is None:
            self._joined_at = sent
        within = JOIN_S if joining or isinstance(request, SyncGroupRequest) else ANSWER_S
        try:
            async with asyncio.timeout(within):
                response = await self._send_request(request)
        except TimeoutError:
            self._hang_up()
            raise errors.RequestTimedOutError from None
        code = getattr(response, "error_code", 0)
        if errors.for_code(code) in _LOST:
            self._forget()
        elif code == 0 and isinstance(request, HeartbeatRequest):
            self._good = max(self._good, sent)
        elif code == 0 and joining:
            alone = response.leader_id == response.member_id and len(response.members) == 1
            self._gain_at = self._clock.mono() + (0.0 if alone else LIMBO_S)
        elif code == 0 and isinstance(request, SyncGroupRequest):
            self._take(response.member_assignment, sent)
        return response

    def _hang_up(self) -> None:
        """The group's broker does not answer: drop the connection and look for the group's broker again."""
        if self._coordinator is None:
            return  # a commit may outlive it
        node = self._coordinator.coordinator_id
        connection = self._client._conns.get((node, ConnectionGroup.COORDINATION))
        if connection is not None:
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        self._coordinator.coordinator_dead()

    def _take(self, assignment: bytes, sent: float) -> None:
        """A new generation: what is ours in it, proved by a request sent at `sent`."""
        decoded = ConsumerProtocol.ASSIGNMENT.decode(assignment) if assignment else None
        partitions = decoded.partitions() if decoded is not None else ()
        for claim in self._claims.values():
            claim.held()  # what ran out in limbo is over, although it would be proved again now
        self._assigned = frozenset(at.partition for at in partitions if at.topic == self._topic)
        self._good, self._joined_at = sent, None
        self._tell()

    def _forget(self) -> None:
        """Nothing is ours any more."""
        self._assigned, self._good, self._joined_at = frozenset(), float("-inf"), None
        self._tell()

    def _tell(self) -> None:
        """Tell the owner what it lost, then what it gained."""
        for number, claim in list(self._claims.items()):
            if not claim.held():
                del self._claims[number]
                self._call(self._owner.lost, claim)
        now = self._clock.mono()
        if self._assigned and now - self._good >= HELD_S:
            self._gain_at = now + LIMBO_S  # one good answer may be that of a broker that has been asleep
        if self._joined_at is not None or now < self._gain_at:
            return
        for number in sorted(self._assigned - self._claims.keys()):
            claim = self._claims[number] = KafkaClaim(self._group, number, self)
            self._call(self._owner.gained, claim)

    def _call(self, tell: Callable[[Claim], None], claim: Claim) -> None:
        """What the owner raises must not end aiokafka's tasks, which would hide it: `run` raises it."""
        try:
            tell(claim)
        except Exception as error:
            self.broken = self.broken or error

    async def commit(self, claim: Claim, topic: str, offset: int | None) -> int | None:
        """`topic` is Kafka's name. Raises NotOwner, Unavailable."""
        if not claim.held() or self._coordinator is None:
            raise NotOwner(f"{claim.group} does not hold {claim.partition}")
        at = TopicPartition(topic, claim.partition)
        try:
            async with asyncio.timeout(3 * ANSWER_S):
                await self._coordinator.ensure_coordinator_known()
                if offset is not None:
                    await self._coordinator._do_commit_offsets(None, {at: OffsetAndMetadata(offset, "")})
                    return offset
                found = await self._coordinator._do_fetch_commit_offsets([at])
        except _LOST as error:
            self._forget()
            raise NotOwner(f"{claim.group} lost {claim.partition}") from error
        except (errors.KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"position in {topic}/{claim.partition}: {error!r}") from error
        return int(found[at].offset) if at in found else None


async def _end(coordinator: Any, *, leave: bool) -> None:
    """End aiokafka's tasks. close() waits for a JoinGroup that is under way, which may take a whole session:
    cut it short, so that the others need not wait for a member that has gone."""
    known, coordinator.generation = coordinator.generation, -1  # close() does not leave by itself
    member_id = coordinator.member_id
    closing = asyncio.ensure_future(coordinator.close())
    try:
        await asyncio.wait({closing}, timeout=CLOSE_S)
    finally:
        closing.cancel()
    await _ended(closing)
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
        task = getattr(coordinator, name)  # looked up now: the first one may just have started the others
        if task is not None:
            task.cancel()
            await _ended(task)
    if leave and member_id and coordinator.coordinator_id is not None:
        coordinator.generation, coordinator.member_id = max(known, 1), member_id
        with contextlib.suppress(errors.KafkaError):
            await coordinator._maybe_leave_group()


async def _ended(task: "asyncio.Future[None]") -> None:
    """Wait for it. Raises what it raised, but for Kafka's own errors."""
    await asyncio.wait({task})
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, errors.KafkaError):
        raise error


@contextlib.asynccontextmanager
async def member(membership: Membership) -> AsyncIterator[None]:
    """Be a member inside the context. What a callback of the owner raises cancels its body and comes out of
    it."""
    body = asyncio.current_task()
    running = asyncio.ensure_future(membership.run())

    def interrupt(done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and body is not None:
            body.cancel()

    running.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if running.done() and body is not None:
            body.uncancel()
            running.result()
        raise
    finally:
        running.remove_done_callback(interrupt)
        running.cancel()
        await asyncio.wait({running})
        await membership.leave()
        if not running.cancelled():
            running.result()
        if membership.broken is not None:
            raise membership.broken
