"""How good and how fast search is.

    python bench/retrieval.py [--drives 10] [--windows 100000]

On simulated drives that no training saw: do words, frames and a second of sound find windows of *other* drives in
which the same is going on (precision@10), and do they find their own window among all (recall@k)? Each with the
modality's own vector, which search uses, and with the fused vector of a window that has this modality alone. Do phrases
find what they speak of (precision@10)? Then how long a search takes among many windows, and how much the graph misses
of what comparing all finds.

Prints a line of JSON, then the same as Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from streamer.events import KIND_NAMES
from streamer.feeds import script, simulate
from streamer.feeds.scenario import FACTS
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample, only
from streamer.result import Result
from streamer.retrieval import query
from streamer.retrieval.store import Covered, Store, space_of
from streamer.training.dataset import Example
from streamer.training.simulated import FIRST_HELD_OUT_SEED, START_US, examples

RECALLS, TOP = (1, 5, 10), 10
BATCH = 32
SHOWS = {"image": (1,), "audio": (0,), "text": (0, 1)}  # which of (siren, obstacle) a modality shows
SEARCHES = 200

Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality and speed of search.")
    parser.add_argument("--model", type=Path, default=Path("models/driving"))
    parser.add_argument("--drives", type=int, default=10, help="held-out simulated drives")
    parser.add_argument("--seconds", type=int, default=60, help="length of each, s")
    parser.add_argument("--windows", type=int, default=100_000, help="windows in the index whose speed is measured")
    parser.add_argument("--cache", type=Path, default=Path("runs/drives"))
    given = parser.parse_args()
    console = Console(stderr=True)
    predictor = Predictor.load(given.model)
    seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + given.drives)
    examples(seeds, given.seconds, predictor.spec, given.cache, console)  # all are made at once, then kept
    per_drive = [examples([seed], given.seconds, predictor.spec, given.cache, console) for seed in seeds]
    drive_N = np.repeat(np.arange(given.drives), [len(drive) for drive in per_drive])
    windows = [example for drive in per_drive for example in drive]
    truth = [facts for seed, drive in zip(seeds, per_drive, strict=True) for facts in facts_of(seed, len(drive))]
    embedding_ND = fused(predictor, [example.sample for example in windows])
    measured = {
        "model": f"{predictor.name} {predictor.version}",
        "drives": given.drives,
        "windows": len(windows),
        "quality": quality(predictor, windows, drive_N, embedding_ND) + phrases(predictor, truth, embedding_ND),
        "speed": speed(predictor, embedding_ND, given.windows, console),
    }
    print(json.dumps(measured))
    print(markdown(measured))


# quality


def quality(
    predictor: Predictor, windows: Sequence[Example], drive_N: NDArray[np.int64], embedding_ND: Floats
) -> list[dict[str, Any]]:
    facts_N2 = np.array([FACTS[str(example.labels["action"])][:2] for example in windows])
    rows = []
    for name, shown in SHOWS.items():
        index_Q = np.array([n for n, e in enumerate(windows) if e.sample.present[KIND_NAMES.index(name)]])
        alone = [only(windows[n].sample, [name]) for n in index_Q]
        alike_QN = (facts_N2[index_Q][:, None, shown] == facts_N2[None, :, shown]).all(-1)
        others_QN = drive_N[index_Q][:, None] != drive_N
        for vectors, vector_QD in (
            ("own", batched(partial(predictor.embed, sensor=name), alone)),
            ("fused", fused(predictor, alone)),
        ):
            score_QN = vector_QD @ embedding_ND.T
            own_Q1 = score_QN[np.arange(len(index_Q)), index_Q][:, None]
            rank_Q = (score_QN > own_Q1).sum(1)
            rows.append(
                {
                    "query": name,
                    "vectors": vectors,
                    "queries": len(index_Q),
                    **{f"recall@{k}": round(float((rank_Q < k).mean()), 4) for k in RECALLS},
                    **{f"recall@{k} by chance": round(k / len(windows), 4) for k in RECALLS},
                    **precision(score_QN, alike_QN, others_QN),
                }
            )
    return rows


def precision(score_QN: Floats, alike_QN: NDArray[np.bool_], among_QN: NDArray[np.bool_]) -> dict[str, float]:
    """Share of the TOP best matches that are alike, and of all of them."""
    top_QK = np.argsort(np.where(among_QN, -score_QN, np.inf), axis=1)[:, :TOP]
    found = np.take_along_axis(alike_QN, top_QK, axis=1).mean()
    chance = (alike_QN & among_QN).sum() / among_QN.sum()
    return {f"precision@{TOP}": round(float(found), 4), f"precision@{TOP} by chance": round(float(chance), 4)}


Facts = dict[str, int | None]  # what is going on in a window


def facts_of(seed: int, windows: int) -> list[Facts]:
    """The truth of each window of a drive, which has a window for every second."""
    drive = simulate.Drive(seed, f"drive-{seed}", START_US, windows)
    return [
        {
            "obstacle": segment.obstacle_kind if segment.obstacle else None,
            "siren": segment.vehicle if segment.siren else None,
            "sound": segment.roadside,
            "bend": segment.bend,
            "light": drive.course.light,
        }
        for segment in drive.course.segments
        for _ in range(segment.start_s, segment.end_s)
    ]


def asked() -> Iterator[tuple[str, Facts]]:
    """Phrases, and what they ask after."""
    for kind, (thing, *_) in enumerate(script.THINGS):
        yield script.OBSTACLE[0].format(thing), {"obstacle": kind}
        for light, (look, *_) in enumerate(script.LIGHTS):
            yield f"{script.OBSTACLE[0].format(thing)} {look}", {"obstacle": kind, "light": light}
    for vehicle, (name, *_) in enumerate(script.VEHICLES):
        yield script.SIREN[1].format(name), {"siren": vehicle}
    for sound, (heard, *_) in enumerate(script.ROADSIDES):
        if heard:
            yield heard, {"sound": sound}
    for bend, (road, *_) in enumerate(script.BENDS):
        yield road, {"bend": bend}


def phrases(predictor: Predictor, truth_N: Sequence[Facts], embedding_ND: Floats) -> list[dict[str, Any]]:
    """How well phrases find, by what they ask after; those that ask for what no drive shows are left out."""
    by_subject: dict[str, list[tuple[str, list[bool]]]] = {}
    for phrase, wanted in asked():
        alike_N = [wanted.items() <= facts.items() for facts in truth_N]
        if any(alike_N):
            by_subject.setdefault(" and ".join(wanted), []).append((phrase, alike_N))
    rows = []
    for subject, queries in by_subject.items():
        score_QN = np.stack([query.text(predictor, phrase) for phrase, _ in queries]) @ embedding_ND.T
        alike_QN = np.array([alike_N for _, alike_N in queries])
        figures = precision(score_QN, alike_QN, np.ones_like(alike_QN))
        rows.append({"query": f"a phrase: {subject}", "vectors": "own", "queries": len(queries), **figures})
    return rows


def fused(predictor: Predictor, samples: Sequence[Sample]) -> Floats:
    """Published embeddings [N, D], rounded to float16 as they are."""
    return batched(
        lambda part: np.stack([one.embedding for one in predictor.predict(part)]).astype(np.float32), samples
    )


def batched(embed: Callable[[Sequence[Sample]], Floats], samples: Sequence[Sample]) -> Floats:
    return np.concatenate([embed(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)])


# speed


def speed(predictor: Predictor, embedding_ND: Floats, count: int, console: Console) -> dict[str, Any]:
    """An index of windows close to those that were measured, as those of a fleet would be."""
    rng = np.random.default_rng(0)
    many_MD = embedding_ND[rng.integers(len(embedding_ND), size=count)]
    many_MD = many_MD + rng.normal(size=many_MD.shape).astype(np.float32) * 0.02
    many_MD /= np.linalg.norm(many_MD, axis=1, keepdims=True)
    space = space_of(predictor.name, predictor.version)
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder), "bench", writable=True) as index:
        added_s, _ = timed(lambda: fill(index, predictor, many_MD))
        with console.status("building the graph"):
            built_s, _ = timed(index.refresh)
        nbytes = sum(path.stat().st_size for path in Path(folder).iterdir())
        asked_SD = many_MD[rng.integers(count, size=SEARCHES)] + rng.normal(size=(SEARCHES, many_MD.shape[1])) * 0.02
        asked_SD = (asked_SD / np.linalg.norm(asked_SD, axis=1, keepdims=True)).astype(np.float32)
        by_graph_ms, exact_ms, shared = [], [], 0
        for number, vector_D in enumerate(asked_SD):
            took_s, by_graph = timed(partial(index.search, space, vector_D, TOP))
            by_graph_ms.append(1000 * took_s)
            if number < SEARCHES // 10:
                took_s, exact = timed(partial(index.search, space, vector_D, TOP, exact=True))
                exact_ms.append(1000 * took_s)
                shared += len({one[:2] for one in by_graph} & {one[:2] for one in exact})
    return {
        "windows": count,
        "added_per_s": round(count / added_s),
        "graph_built_s": round(built_s, 1),
        "bytes_per_window": round(nbytes / count),
        "search_ms_p50": round(float(np.percentile(by_graph_ms, 50)), 2),
        "search_ms_p99": round(float(np.percentile(by_graph_ms, 99)), 2),
        "exact_ms_p50": round(float(np.percentile(exact_ms, 50)), 1),
        f"recall@{TOP} of the exact": round(shared / (TOP * len(exact_ms)), 4),
    }


def fill(index: Store, predictor: Predictor, many_MD: Floats) -> None:
    for start in range(0, len(many_MD), 500):
        chunk = [window(predictor, start + row, vector_D) for row, vector_D in enumerate(many_MD[start : start + 500])]
        index.add("fleet", chunk, Covered(0, chunk[-1].end_us))


def window(predictor: Predictor, number: int, vector_D: Floats) -> Result:
    return Result(
        session="fleet",
        start_us=number * 1_000_000,
        end_us=(number + 1) * 1_000_000,
        closed_by="complete",
        present=(),
        coverage={},
        members={},
        outputs={},
        embedding=vector_D.astype("<f2").tobytes(),
        model=predictor.name,
        version=predictor.version,
        status="ok",
        latencies_us={},
    )


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned."""
    began_s = time.perf_counter()
    returned = call()
    return time.perf_counter() - began_s, returned


# as text


def markdown(measured: dict[str, Any]) -> str:
    heads = [*(f"recall@{k}" for k in RECALLS), f"precision@{TOP}"]
    lines = [
        f"{measured['model']}, {measured['windows']} windows of {measured['drives']} held-out drives; by chance in "
        "brackets.",
        "",
        f"| query | vector | queries | {' | '.join(heads)} |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for row in measured["quality"]:
        cells = [f"{row[head]:.3f} ({row[f'{head} by chance']:.3f})" if head in row else "–" for head in heads]
        lines.append(f"| {row['query']} | {row['vectors']} | {row['queries']} | {' | '.join(cells)} |")
    lines += ["", "| speed | |", "|---|---|", *(f"| {name} | {value} |" for name, value in measured["speed"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
