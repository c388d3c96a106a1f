"""Settings of a topic on a real cluster, changed as an administrator would."""

from aiokafka.protocol.admin import AlterConfigsRequest

from libs.log import kafka_topics
from libs.log.kafka_wire import Wire


async def configure(bootstrap: tuple[str, ...], name: str, config: dict[str, str]) -> None:
    """Replace all settings of Kafka's topic `name`."""
    wire = Wire(bootstrap, (), "test")
    try:
        request = AlterConfigsRequest([(kafka_topics.TOPIC, name, list(config.items()))])
        response = await wire.ask((await wire.nodes())[0], request)
        assert response.resources[0][0] == 0, response.resources
    finally:
        await wire.close()
