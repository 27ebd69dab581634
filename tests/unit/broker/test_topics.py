"""What can be said about topics without a broker: that there is none."""

from __future__ import annotations

import pytest

from streamer.broker import topics
from streamer.errors import UsageError
from streamer.local.process import free_port
from streamer.settings import Settings


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{free}", "nosuchhost.invalid:9092", "http://127.0.0.1:{free}", "nonsense"]
)
def test_no_broker_is_one_line_with_the_address_and_how_to_mend_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "TIMEOUT_MS", 300)
    settings = Settings.load(kafka=address.format(free=free_port()))

    for call in (topics.check, topics.create):
        with pytest.raises(UsageError, match=r"no Kafka answers at .*; run `streamer up` or set STREAMER_KAFKA") as no:
            call(settings)
        assert settings.kafka in str(no.value)
        assert "\n" not in str(no.value)


def test_where_no_broker_is_nothing_answers() -> None:
    assert not topics.answers(Settings.load(kafka=f"127.0.0.1:{free_port()}"), timeout_ms=300)


def test_side_topics_take_a_record_of_the_largest_size_with_headers_on_top() -> None:
    settings = Settings.load(max_message_bytes=1 << 20)

    sizes = {wanted.name: wanted.max_message_bytes for wanted in topics._wanted(settings)}

    assert {sizes[name] for name in settings.source_topics} == {1 << 20}
    assert sizes[settings.topic("deadletter")] >= (1 << 20) + (32 << 10)
