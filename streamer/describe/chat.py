"""Questions to a language model over HTTP: POST /chat/completions, as OpenAI, vLLM, llama.cpp and Ollama have it.

The answer must be JSON of a given shape (``response_format`` ``json_schema``), which is checked again here. A call that
fails is repeated with back-off, or when the server says (``Retry-After``); an answer of another shape is asked for once
more. What comes back is read up to a limit, redirects are not followed, and nothing of an answer is ever run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from streamer.backoff import Backoff
from streamer.describe.budget import Budget
from streamer.describe.metrics import Metrics
from streamer.errors import StreamerError, one_line
from streamer.settings import Settings

ATTEMPTS = 3
MISSHAPEN_ATTEMPTS = 2  # of these, answers that are not as asked for
MOST_WAIT_S = 20.0  # that a server may ask for
MAX_ANSWER_BYTES = 1 << 20
CHARACTERS_A_TOKEN = 3  # few, so that estimates are high
FRAME_TOKENS = 1000  # likewise: a picture of 768 px
MISSHAPEN = "gave an answer that is not of the shape that was asked for"
BUSY, TOO_MANY = 503, 429
PASSING = frozenset({408, 409, 425, TOO_MANY, 500, 502, BUSY, 504})  # may succeed when repeated

A = TypeVar("A", bound=msgspec.Struct)


class NoAnswer(StreamerError):
    """The model gave no answer that can be used; the text says why in a few words.

    Args:
        outcome: One of ``OUTCOMES`` of :mod:`streamer.describe.metrics`.
        why: What went wrong.
        wait_s: Before that another question is useless; ``None``: the server says nothing of it.
    """

    def __init__(self, outcome: str, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.wait_s = wait_s


class OverBudget(StreamerError):
    """The question was not asked, since the tokens of this minute are used up."""


class Answer(msgspec.Struct, Generic[A], frozen=True):
    """What was answered, and by which model."""

    content: A
    model: str


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class Chat:
    """A language model behind an address; ``async with`` it.

    Args:
        settings: ``describe_url`` and ``describe_model`` are set.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.describe_url is not None
        assert settings.describe_model is not None
        self.model = settings.describe_model
        self._url = settings.describe_url.rstrip("/") + "/chat/completions"
        self._timeout = aiohttp.ClientTimeout(total=settings.describe_timeout_ms / 1000)
        self._budget = Budget(settings.describe_tokens_a_minute)
        self._metrics = metrics
        self._headers = {}
        if settings.describe_key is not None:
            self._headers["Authorization"] = f"Bearer {settings.describe_key.get_secret_value()}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Chat:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout, trust_env=True)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(
        self,
        messages: Sequence[dict[str, Any]],
        answer: type[A],
        most_tokens: int,
        valid: Callable[[A], bool] = lambda answer: True,
    ) -> Answer[A]:
        """Ask, and check what is answered.

        Args:
            messages: As the API has them; the content of one is text, or a list of parts.
            answer: The shape of the answer.
            most_tokens: Longest answer.
            valid: What is to be checked beyond the shape.

        Raises:
            NoAnswer: No attempt gave one.
            OverBudget: Too few tokens are left for an attempt.
        """
        question = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": most_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": answer.__name__.lower(), "schema": schema(answer)},
            },
        }
        cost = estimate(messages) + most_tokens
        backoff, misshapen = Backoff(), 0
        for attempt in range(1, ATTEMPTS + 1):
            if not self._budget.take(cost):
                raise OverBudget(f"a question of about {cost} tokens is more than what is left of this minute's")
            try:
                found = await self._once(question, answer, cost)
                if not valid(found):
                    raise NoAnswer("misshapen", MISSHAPEN)
                self._metrics.requests.labels("ok").inc()
                return Answer(found, self.model)
            except NoAnswer as failed:
                self._metrics.requests.labels(failed.outcome).inc()
                misshapen += failed.outcome == "misshapen"
                final = failed.outcome == "refused" or attempt == ATTEMPTS or misshapen == MISSHAPEN_ATTEMPTS
                if final or (failed.wait_s or 0.0) > MOST_WAIT_S:
                    raise
                await (backoff.pause() if failed.wait_s is None else asyncio.sleep(failed.wait_s))
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, question: dict[str, Any], answer: type[A], reserved: int) -> A:
        assert self._session is not None
        begun_s = monotonic()
        try:
            async with self._session.post(self._url, json=question, allow_redirects=False) as response:
                if response.status != 200:
                    raise _failed(response)
                body = await _read(response)
        except TimeoutError:
            raise NoAnswer("timeout", f"did not answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL that is none
            raise NoAnswer("connection", f"cannot be reached: {one_line(error)}") from None
        self._metrics.request_seconds.observe(monotonic() - begun_s)
        try:
            completion = msgspec.json.decode(body, type=_Completion)
            content = completion.choices[0].message.content
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
            raise NoAnswer("misshapen", "gave an answer that is no chat completion") from None
        self._settle(completion.usage, reserved)
        try:
            found = msgspec.json.decode(content or "", type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NoAnswer("misshapen", MISSHAPEN) from None
        return found

    def _settle(self, usage: _Usage | None, reserved: int) -> None:
        if usage is None:
            self._metrics.tokens.labels("estimated").inc(reserved)
            return
        self._budget.settle(reserved, usage.prompt_tokens + usage.completion_tokens)
        self._metrics.tokens.labels("question").inc(usage.prompt_tokens)
        self._metrics.tokens.labels("answer").inc(usage.completion_tokens)


def schema(answer: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a flat struct, in the form that all these servers take: without references."""
    _, components = msgspec.json.schema_components([answer])
    return {**components[answer.__name__], "additionalProperties": False}


def estimate(messages: Sequence[dict[str, Any]]) -> int:
    """Tokens that a question is likely to cost, rather more than less."""
    tokens = 0
    for message in messages:
        parts = message["content"]
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            is_text = part["type"] == "text"
            tokens += math.ceil(len(part["text"]) / CHARACTERS_A_TOKEN) if is_text else FRAME_TOKENS
    return tokens


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise NoAnswer("misshapen", f"gave an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(body)


def _failed(response: aiohttp.ClientResponse) -> NoAnswer:
    if response.status not in PASSING:
        return NoAnswer("refused", f"refused the question: HTTP {response.status}")
    outcome = "busy" if response.status in (TOO_MANY, BUSY) else "error"
    return NoAnswer(outcome, f"answered HTTP {response.status}", _seconds(response.headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
