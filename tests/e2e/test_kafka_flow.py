"""The whole flow on a real Kafka broker, logged in to over TLS: nothing lost over a broker's crash, no other topic taken for ours."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka.admin import AdminClient

from connectors.topics.kafka import KafkaTopics
from tests.e2e.harness import home
from tests.servers.kafka import USER, OwnBroker

TOPIC = "raw.trades.binance"
DAYS = [str(Path(__file__).parents[1] / "data" / "binance" / f"btcusdt_{day}.gz") for day in ("20240808", "20240809")]


def test_a_flow_from_kafka_survives_the_broker_and_refuses_a_topic_created_again(own_kafka_broker: OwnBroker, tmp_path: Path) -> None:
    broker = own_kafka_broker
    url = f"kafka://{USER}@127.0.0.1:{broker.secure_port}?sasl.mechanism=PLAIN&ssl.ca.location={broker.certificate}"
    with home(tmp_path / "home", K2_TOPICS_URL=url, K2_KAFKA_PASSWORD=broker.password) as where:
        where.k2("load", "--exchange", "binance", DAYS[0])
        where.k2("run", "--until-end")
        broker.kill()
        broker.start()
        where.k2("load", "--exchange", "binance", DAYS[1])
        where.k2("run", "--until-end")
        where.audit()
        log = KafkaTopics(url, password=broker.password)
        try:
            first = log.generation(TOPIC)
            admin = AdminClient({"bootstrap.servers": broker.address})
            admin.delete_topics([TOPIC])[TOPIC].result()
            where.k2("load", "--exchange", "binance", *DAYS)
            assert log.generation(TOPIC) != first
        finally:
            log.close()
        refused = where.k2("run", "--until-end", check=False)
        assert refused.returncode == 3
        assert "deleted and created again" in refused.stderr
        assert "Traceback" not in refused.stderr
