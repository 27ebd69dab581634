"""Queries as people write them, against windows' words as models/everyday writes them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bench.senses import Table
from streamer.senses.sentences import SentenceEncoder
from streamer.settings import Settings

PAIRS = (  # a query, and the words of the window that is meant
    ("two people and a car, engine running", "two people and a car; engine"),
    ("a crowded street", "nine people, two cars and a bus; traffic, crowd"),
    ("somebody is talking about the weather", "a person; speech; says: it will rain all day tomorrow"),
    ("an ambulance passes", "three cars; siren, traffic"),
    ("a dog barks at a cat", "a cat and a dog; dog"),
    ("parked cars, nobody around", "eight cars; wind"),
    ("driving fast on a motorway", "four cars and a truck; engine, traffic; speed 33.1 m/s"),
    ("standing still at a traffic light", "two cars and a traffic light; engine; speed 0 m/s"),
    ("playing the piano", "a person; music"),
    ("a meal at home", "two people, four cups, a bottle and a dining table; speech"),
    ("working at a computer", "a person, a laptop and a keyboard; typing"),
    ("which way do we go at the crossing", "a traffic light and a car; speech; says: turn left at the next crossing"),
)
TRIPLETS = (  # a sentence, one that means the same, one that does not
    ("the car brakes for a pedestrian", "the vehicle stops because somebody crosses", "the car plays loud music"),
    ("turn left at the next corner", "take the next road on the left", "the left camera is dirty"),
    ("the patient's heart beats fast", "tachycardia", "the patient walks fast"),
    ("a siren behind us", "an emergency vehicle approaches from the rear", "silence behind us"),
    ("a cyclist on the right", "a person on a bicycle at our right-hand side", "the right answer"),
    ("the road is icy", "it is slippery", "the road is long"),
    ("nobody speaks", "there is silence", "nobody drives"),
    ("the door was slammed", "somebody shut the door loudly", "the window is open"),
    ("children are playing in the street", "kids on the road with a ball", "an empty street"),
    ("the engine does not start", "the motor refuses to run", "the engine roars"),
)


def measure(settings: Settings, data: Path) -> Table:
    """How often what is meant comes first, and how much nearer it is than anything else."""
    encoder = SentenceEncoder(settings)
    queries_QD, windows_QD = (encoder.encode([pair[side] for pair in PAIRS]) for side in (0, 1))
    scores_QQ = queries_QD @ windows_QD.T
    ranks_Q = (scores_QQ > scores_QQ.diagonal()[:, None]).sum(axis=1)
    others_Q = np.where(np.eye(len(PAIRS), dtype=np.bool_), -1, scores_QQ).max(axis=1)
    one_ND, same_ND, other_ND = (encoder.encode([triplet[side] for triplet in TRIPLETS]) for side in range(3))
    same_N, other_N = (one_ND * same_ND).sum(axis=1), (one_ND * other_ND).sum(axis=1)
    began_s = time.process_time()
    for query, _ in PAIRS:
        encoder.encode([query])
    each_ms = 1000 * (time.process_time() - began_s) / len(PAIRS)
    rows = [
        (
            "windows meant by a query, among 12",
            f"{(ranks_Q == 0).sum()} of {len(PAIRS)} first, {(ranks_Q < 3).sum()} among the first three",
            f"{np.median(scores_QQ.diagonal()):.2f}",
            f"{np.median(others_Q):.2f}",
        ),
        (
            "sentences of one meaning, against one of another",
            f"{(same_N > other_N).sum()} of {len(TRIPLETS)} nearer",
            f"{np.median(same_N):.2f}",
            f"{np.median(other_N):.2f}",
        ),
    ]
    about = f"Pairs and triplets are in `bench/senses/sentences.py`; {each_ms:.1f} ms of CPU for a sentence."
    return Table(about, ("task", "right", "cosine of what is meant, median", "of the nearest other, median"), rows)
