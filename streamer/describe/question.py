"""`streamer ask`: a question to a stretch of a session's time, answered with the windows that the answer rests on.

With a language model from the descriptions of the windows; without one by extraction: the windows whose descriptions
have the words of the question, else those that an index finds alike, else those in which a decision changes.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import redis
from prometheus_client import CollectorRegistry

from streamer.describe import evidence, prompts
from streamer.describe.chat import Chat, NoAnswer, OverBudget
from streamer.describe.describer import OUTPUTS
from streamer.describe.metrics import Metrics
from streamer.describe.sentences import Before, changed, sentences, sparse
from streamer.errors import StreamerError, UsageError, one_line
from streamer.model.wording import listed
from streamer.result import Result
from streamer.retrieval.contents import Log, Records
from streamer.settings import Settings
from streamer.store import descriptions, results
from streamer.store.descriptions import Description
from streamer.store.readers import PAGE
from streamer.store.results import Keys

MAX_QUESTION = 500  # characters
MOST_EXTRACTED = 8  # windows of an answer by extraction
MOST_GIVEN = 120  # windows that a language model is given
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all an and any are as at be been before being by can could did do does doing during for from "
        "had has have he her here him his how i if in into is it its just me more most my no not of off on once or our "
        "out over she should so some such than that the their them then there these they this those through to too "
        "under until up us very was we were what when where which while who whom whose why will with would you your",
    )
)
ENDINGS = ("ing", "ed", "es", "s", "e")  # braking, braked, brakes, brake


class Reply(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        by: ``extraction``, or the name of the language model.
        windows: What it rests on, in order of time.
        note: What went wrong or was left out; empty if nothing.
    """

    question: str
    answer: str
    by: str
    windows: list[Description]
    note: str = ""

    def to_json(self) -> bytes:
        """One line of JSON."""
        return msgspec.json.encode(
            {**msgspec.structs.asdict(self), "windows": [msgspec.Raw(one.to_json()) for one in self.windows]}
        )


class Window(msgspec.Struct, frozen=True):
    """A window of the stretch, with its description; ``changed``: a decision is another than in the one before."""

    shown: Description
    changed: bool


def ask(settings: Settings, session: str, question: str, since_us: int = 0, until_us: int | None = None) -> Reply:
    """Answer a question to the windows that end in ``[since_us, until_us]``.

    Raises:
        UsageError: There are none, the question is empty or too long, or Kafka or Redis does not answer.
    """
    question = " ".join(question.split())
    if not 0 < len(question) <= MAX_QUESTION:
        raise UsageError(f"a question has 1 to {MAX_QUESTION} characters, not {len(question)}")
    with results.connected(settings) as (client, keys):
        windows = _windows(settings, client, keys, session, since_us, until_us)
    if settings.describe_url is not None:
        return asyncio.run(_by_model(settings, question, windows))
    why = "no language model is set (STREAMER_DESCRIBE_URL)"
    return by_extraction(question, windows, lambda: _alike(settings, question, windows), why)


def _windows(
    settings: Settings, client: redis.Redis, keys: Keys, session: str, since_us: int, until_us: int | None
) -> list[Window]:
    found = [
        result
        for result in results.results(client, keys, session, since_us)
        if until_us is None or result.end_us <= until_us
    ]
    if not found:
        if session not in (known := results.sessions(client, keys)):
            raise UsageError(f"no session {session!r} in Redis; there are: {', '.join(known[:10]) or 'none'}")
        raise UsageError(f"session {session!r} has no windows in that time; `streamer results` lists what there is")
    told = {one.end_us: one for one in descriptions.read(client, keys, session, since_us, until_us)}
    undescribed = [result for result in found if result.end_us not in told]
    said = dict(zip([result.end_us for result in undescribed], _words(settings, undescribed), strict=True))
    before, windows, silent = Before(), [], sparse(settings)
    for result in found:
        shown = told.get(result.end_us) or Description(
            session, result.start_us, result.end_us, sentences(result, said[result.end_us], before, silent), OUTPUTS
        )
        windows.append(Window(shown, changed(result, before)))
        before = before.after(result)
    return windows


def _words(settings: Settings, undescribed: Sequence[Result]) -> list[evidence.Words]:
    """What was said in windows that `streamer describe` has not described."""
    if not undescribed:
        return []
    source = Log(settings)
    try:
        records = Records(settings, source)
        pages = (undescribed[start : start + PAGE] for start in range(0, len(undescribed), PAGE))
        return [words for page in pages for words in evidence.words(records, page)]
    finally:
        source.close()


# by extraction


def by_extraction(question: str, windows: Sequence[Window], alike: Callable[[], list[Window]], why: str) -> Reply:
    """The windows that match the question best.

    Args:
        alike: Gives windows that an index finds alike, best first; called only if no word of the question matches.
        why: Why no language model answers.
    """
    ranked, keywords = _matching(question, windows)
    if ranked:
        how = f"{listed(keywords, 'or')} stands in {len(ranked)} of {len(windows)} descriptions"
    elif ranked := alike():
        how = "no window has its words; the index finds these most alike"
    elif ranked := [window for window in windows if window.changed]:
        how = "no window has its words; these are the ones in which a decision changes"
    else:
        how = "no window has its words, and no decision changes"
    chosen = sorted((window.shown for window in ranked[:MOST_EXTRACTED]), key=lambda shown: shown.end_us)
    more = f"; the best {len(chosen)} of them" if len(ranked) > len(chosen) else ""
    return Reply(question, f"Windows are shown instead of an answer, since {why}: {how}{more}.", "extraction", chosen)


def _matching(question: str, windows: Sequence[Window]) -> tuple[list[Window], list[str]]:
    """The windows with words of the question, best first, and those words; rare words count more, changes too."""
    wanted = {_stem(word): word for word in _split(question) if word not in STOP_WORDS}
    stems = [{_stem(word) for word in _split(window.shown.text)} & wanted.keys() for window in windows]
    counts = Counter(stem for found in stems for stem in found)
    weights = {stem: math.log(1 + len(windows) / count) for stem, count in counts.items()}
    scores = [sum(weights[stem] for stem in found) for found in stems]
    order = sorted(range(len(windows)), key=lambda i: (-scores[i], not windows[i].changed, i))
    return [windows[i] for i in order if scores[i] > 0], [word for stem, word in wanted.items() if stem in counts]


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) > 2:
            return word.removesuffix(ending)
    return word


def _alike(settings: Settings, question: str, windows: Sequence[Window]) -> list[Window]:
    """What the index of `streamer index` finds alike; nothing if there is none, or not of this model."""
    from streamer.retrieval.indexes import MAX_HITS
    from streamer.retrieval.search import Query, find

    def load() -> object:
        from streamer.model.predictor import Predictor

        return Predictor.load(settings.model, settings.device, settings)

    by_end = {window.shown.end_us: window for window in windows}
    try:
        hits = find(settings, Query("text", question, MAX_HITS, windows[0].shown.session), load)  # type: ignore[arg-type]
    except StreamerError:
        return []
    return [by_end[hit.end_us] for hit in hits if hit.end_us in by_end]


# by a language model


async def _by_model(settings: Settings, question: str, windows: Sequence[Window]) -> Reply:
    given = _given(question, windows)
    note = f"the model was given {len(given)} of {len(windows)} windows" if len(given) < len(windows) else ""

    def exist(answer: prompts.Answered) -> bool:
        return all(1 <= number <= len(given) for number in answer.windows)

    async with Chat(settings, Metrics(CollectorRegistry())) as chat:
        try:
            answer = await chat.ask(
                prompts.answering(question, given), prompts.Answered, prompts.ANSWER_TOKENS, valid=exist
            )
        except (NoAnswer, OverBudget) as error:
            why = f"{chat.model} {one_line(error)}"
            if isinstance(error, OverBudget):
                why = "STREAMER_DESCRIBE_TOKENS_A_MINUTE is too small for the question"
            return by_extraction(question, windows, lambda: _alike(settings, question, windows), why)
    rests_on = [given[number - 1] for number in sorted(set(answer.content.windows))]
    return Reply(question, answer.content.answer.strip(), answer.model, rests_on, note)


def _given(question: str, windows: Sequence[Window]) -> list[Description]:
    """What the model is given: all windows, or of many the ones that match and those that change, then the newest."""
    ranked, _ = _matching(question, windows)
    chosen = dict.fromkeys(
        window.shown.end_us
        for window in (*ranked, *(window for window in windows if window.changed), *reversed(windows))
    )
    ends = set(list(chosen)[:MOST_GIVEN])
    return [window.shown for window in windows if window.shown.end_us in ends]
