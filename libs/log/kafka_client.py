"""aiokafka's client, which closes every connection that it opened.

Shell: sockets. aiokafka's own forgets two kinds: the connection of a bootstrap that is cancelled, and what a
request under way opens after `close` has looked at what is open.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, create_conn
from aiokafka.protocol.metadata import MetadataRequest

BACKOFF_MS = 50


class Client(AIOKafkaClient):  # type: ignore[misc]
    """`name`: what the brokers' logs call it. `timeout_ms`: of each request."""

    def __init__(self, bootstrap: Sequence[str], name: str, timeout_ms: int) -> None:
        super().__init__(
            bootstrap_servers=list(bootstrap),
            client_id=f"backupmx-{name}",
            request_timeout_ms=timeout_ms,
            retry_backoff_ms=BACKOFF_MS,
        )
        self._closed = False

    async def bootstrap(self) -> None:
        """Raises KafkaError when no broker answers."""
        await bootstrap(self)

    async def close(self) -> None:
        self._closed = True
        await super().close()

    async def _get_conn(self, *args: Any, **how: Any) -> Any:
        connection = await super()._get_conn(*args, **how)
        if connection is not None and self._closed:
            connection.close()
            return None
        return connection


async def bootstrap(client: AIOKafkaClient) -> None:
    """Learn the brokers from the first that answers; what `AIOKafkaClient.bootstrap` does, over a plain
    connection. Raises KafkaError when none does."""
    for host, port, _ in client.hosts:
        try:
            connection = await create_conn(
                host, port, client_id=client._client_id, request_timeout_ms=client._request_timeout_ms
            )
        except (errors.KafkaError, OSError, TimeoutError):
            continue
        try:
            client.cluster.update_metadata(await connection.send(MetadataRequest([])))
        except (errors.KafkaError, TimeoutError):
            continue
        finally:
            connection.close()
        if client.cluster.brokers():  # one that knows of none, itself included, is still starting
            client._sync_task = asyncio.get_running_loop().create_task(client._md_synchronizer())
            return
    raise errors.KafkaConnectionError(f"no broker of {client.hosts} answers")
