"""`streamer describe` and `streamer ask` with a language model: what it is given, when it is asked, what is kept."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from os import environ
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from aiohttp import web
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from PIL import Image

from streamer.align.decode import home_partition
from streamer.describe.question import ask
from streamer.errors import UsageError
from streamer.local.worker import environment
from streamer.result import ranges
from streamer.settings import Settings
from streamer.store.results import Keys
from tests.harness import S_US, read_topic, second, send, wait_for
from tests.integration.test_describe import described, numbers, publish, reader_process, result
from tests.language_model import LanguageModel, completion, running
from tests.language_model import described as says

pytestmark = pytest.mark.integration

BEGIN_US = 1_767_225_600 * S_US
Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def model() -> Iterator[LanguageModel]:
    with running() as model:
        yield model


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def settings(topics: Settings, model: LanguageModel) -> Settings:
    given = {"describe_url": model.url, "describe_model": "seer", "describe_timeout_ms": 5000}
    return Settings(**(topics.model_dump(exclude_unset=True) | given))


def run(settings: Settings, folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *arguments],
        cwd=folder,
        env=environ | environment(settings),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def drive(settings: Settings, client: redis.Redis, seconds: int) -> None:
    """Seconds of all modalities in Kafka, and results in Redis that name their records, as a worker publishes them."""
    for n in range(seconds):
        send(settings, second(settings, "car", BEGIN_US + n * S_US))
    members: dict[int, dict[str, list[int]]] = {n: {} for n in range(seconds)}
    for topic in settings.source_topics:
        for record in read_topic(settings, topic):
            time_us = int(dict(record.headers)["ce_id"].decode().rpartition("-")[2])
            members[(time_us - BEGIN_US) // S_US].setdefault(topic, []).append(record.offset)
    for n, of in members.items():
        window = result(n + 1)
        start_us = BEGIN_US + n * S_US
        publish(
            client,
            Keys(settings.key_prefix),
            msgspec.structs.replace(
                window,
                start_us=start_us,
                end_us=start_us + S_US,
                members={topic: ranges(offsets) for topic, offsets in of.items()},
            ),
        )


def test_frames_words_and_telemetry_of_a_window_are_given_and_what_is_deleted_is_told(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    keys = Keys(settings.key_prefix)
    drive(settings, client, 3)
    run(settings, tmp_path, "describe", "--once")
    assert [(one.text, one.by, one.note) for one in described(client, keys)] == [("A car brakes.", "seer", "")] * 3
    assert len(model.questions) == 3
    for question in model.questions:
        text, *frames = question["messages"][1]["content"]
        data = json.loads(text["text"])
        assert data["words"] == ["continue straight"]
        assert data["telemetry"]["speed"] == {"unit": "m/s", "first": 10, "last": 10, "least": 10, "most": 10}
        assert data["missing"] == []
        assert len(frames) == 2
        for frame in frames:
            content = base64.b64decode(frame["image_url"]["url"].partition(",")[2])
            assert Image.open(io.BytesIO(content)).size == (64, 48)

    client.delete(keys.descriptions("car"), keys.described("car"))
    topic = TopicPartition(settings.source_topics[0], home_partition(b"car", settings.partitions))
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    admin.delete_records({topic: 6})
    admin.close()
    run(settings, tmp_path, "describe", "--once")
    assert {(one.text, one.note) for one in described(client, keys)} == {
        ("A car brakes.", "Kafka no longer has its frames")
    }
    assert json.loads(model.questions[-1]["messages"][1]["content"])["missing"] == ["frames"]


def test_when_the_model_is_asked_follows_the_budget_and_the_rest_is_told_from_the_outputs(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    keys = Keys(settings.key_prefix)
    publish(client, keys, *(result(n) for n in range(1, 21)))  # the decision changes at 2, 4, 6 and so on
    asks: Callable[..., Settings] = partial(_asks, settings, client, keys)

    every_fifth = asks(describe_every=5, describe_changes=False)
    run(every_fifth, tmp_path, "describe", "--once")
    assert by_model(client, keys) == [1, 6, 11, 16]

    changes = asks(describe_every=0, describe_changes=True)
    run(changes, tmp_path, "describe", "--once")
    assert by_model(client, keys) == list(range(2, 21, 2))

    poor = asks(describe_tokens_a_minute=1000)
    model.answers = [lambda request: web.json_response(completion('{"description": "A car."}', tokens=200))]
    run(poor, tmp_path, "describe", "--once")
    assert by_model(client, keys) == [1, 2]
    found = described(client, keys)
    assert found[5].note == "this minute's tokens are used up"
    assert found[5].text == "Action is proceed (75 %), and was creep before."
    assert numbers(found) == list(range(1, 21))


def _asks(settings: Settings, client: redis.Redis, keys: Keys, **other: Any) -> Settings:
    client.delete(keys.descriptions("car"), keys.described("car"))
    return Settings(**(settings.model_dump(exclude_unset=True) | other))


def by_model(client: redis.Redis, keys: Keys) -> list[int]:
    return numbers([one for one in described(client, keys) if one.by == "seer"])


def test_a_model_that_fails_or_lags_holds_up_nothing_and_its_windows_say_so(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    keys = Keys(settings.key_prefix)
    publish(client, keys, *(result(n) for n in range(1, 61)))
    model.answers = [lambda request: web.Response(status=500)]
    run(settings, tmp_path, "describe", "--once")
    found = described(client, keys)
    assert numbers(found) == list(range(1, 61))
    assert {one.by for one in found} == {"outputs"}
    assert len(model.questions) == 3  # the attempts at the first window that was not too far behind
    assert found[0].note == "seer was not asked: 59 windows waited"
    assert found[29].note == "seer answered HTTP 500"
    assert found[30].note == "seer was not asked, after it failed: seer answered HTTP 500"


def test_killed_while_the_model_is_asked_every_window_is_described_once(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    keys = Keys(settings.key_prefix)
    publish(client, keys, *(result(n) for n in range(1, 31)))
    for so_far in (3, 9, 20):
        with reader_process(settings, tmp_path, 0) as process:
            wait_for(lambda wanted=so_far: len(model.questions) > wanted, 60.0)  # type: ignore[misc]
            process.kill()
    run(settings, tmp_path, "describe", "--once")
    found = described(client, keys)
    assert numbers(found) == list(range(1, 31))
    assert {one.by for one in found} == {"seer"}
    assert 30 <= len(model.questions) <= 33  # the question under way is asked again, and no other


def test_without_the_network_that_finds_faces_nothing_is_sent_unblurred(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    drive(settings, client, 1)
    blurring = Settings(**(settings.model_dump(exclude_unset=True) | {"describe_blur_faces": True}))
    said = run(blurring, tmp_path, "describe", "--once", code=1).stderr.decode()
    assert said.startswith("streamer: faces needs centerface, which is not here")
    assert len(said.splitlines()) == 1
    assert model.questions == []


def test_a_question_is_answered_with_the_windows_that_the_answer_rests_on(
    settings: Settings, topics: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    keys = Keys(settings.key_prefix)
    publish(client, keys, *(result(n) for n in range(1, 11)))

    # by the model; a window that there is not is an answer of the wrong shape
    model.answers = [
        lambda request: web.json_response(completion('{"answer": "It saw a child.", "windows": [2, 99]}')),
        lambda request: web.json_response(completion('{"answer": "It saw a child.", "windows": [3, 2, 3]}')),
    ]
    asked = ("ask", "car", "why did it brake?", "--since", "1970-01-01T00:00:02Z", "--json")
    reply = json.loads(run(settings, tmp_path, *asked).stdout)
    assert (reply["answer"], reply["by"], reply["note"]) == ("It saw a child.", "seer", "")
    assert [one["id"] for one in reply["windows"]] == ["car/3000000", "car/4000000"]
    given = json.loads(model.questions[-1]["messages"][1]["content"])
    assert given["question"] == "why did it brake?"
    assert [one["number"] for one in given["windows"]] == list(range(1, 10))
    assert given["windows"][0]["text"] == "Action is brake (75 %)."

    # a model that fails, and none at all: by extraction, which says so
    model.answers = [lambda request: web.Response(status=401)]
    reply = json.loads(run(settings, tmp_path, *asked).stdout)
    assert reply["by"] == "extraction"
    assert "since seer refused the question: HTTP 401: " in reply["answer"]
    said = run(topics, tmp_path, "ask", "car", "why did it brake?", "--until", "1970-01-01T00:00:05Z").stdout.decode()
    assert said.startswith("Windows are shown instead of an answer, since no language model is set (STREAMER_DESCRIBE")
    assert said.count("Action is brake") == 2

    # and what cannot be asked
    for session, question, since_us, why in (
        ("nobody", "x", 0, "^no session 'nobody' in Redis; there are: car$"),
        ("car", " ", 0, "^a question has 1 to 500 characters, not 0$"),
        ("car", "x", BEGIN_US, "^session 'car' has no windows in that time"),
    ):
        with pytest.raises(UsageError, match=why):
            ask(topics, session, question, since_us)


def test_a_key_lies_in_a_file_and_is_shown_nowhere(
    settings: Settings, model: LanguageModel, client: redis.Redis, tmp_path: Path
) -> None:
    publish(client, Keys(settings.key_prefix), result(1))
    (tmp_path / "key").write_text("open sesame\n")
    model.answers = [lambda request: says("A car.")]
    variables = environ | environment(settings) | {"STREAMER_DESCRIBE_KEY_FILE": str(tmp_path / "key")}
    for arguments in (["describe", "--once", "--json"], ["settings"]):
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *arguments], cwd=tmp_path, env=variables, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"sesame" not in done.stdout + done.stderr
    assert model.headers[0]["Authorization"] == "Bearer open sesame"
