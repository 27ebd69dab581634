"""The limit of the pipeline, run by ``bench.pipeline``: the cost of decoding and inference alone.

Reads the topics of the settings into memory and aligns them by the worker's own code, which gives the same windows
that a worker makes. Then, in one thread, batch after batch: ``Predictor.decode`` and ``predict_each``, which are what
the worker calls. Only that is measured, and printed as one line of JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import torch
from kafka import KafkaConsumer, TopicPartition

from bench.rig import Bare
from streamer.events import Record, Window
from streamer.model import reload
from streamer.model.predictor import predict_each
from streamer.settings import Settings
from streamer.training import simulated


def main() -> None:
    """Align and measure what the topics of the settings hold."""
    settings = Settings.load()
    print(msgspec.json.encode(measure(settings, list(aligned(settings, records(settings))))).decode(), flush=True)


def measure(settings: Settings, windows: list[Window]) -> Bare:
    """Load the model, print ``ready``, decode and predict batch after batch."""
    predictor = reload.load(settings)
    torch.set_num_threads(1)
    print("ready", flush=True)
    began_s, spent_s, predict_s = time.perf_counter(), time.process_time(), 0.0
    for begin in range(0, len(windows), settings.max_batch):
        samples = []
        for window in windows[begin : begin + settings.max_batch]:
            sample, rejects = predictor.decode(window)
            if rejects:
                raise rejects[0][1]
            samples.append(sample)
        decoded_s = time.process_time()
        predictions = predict_each(predictor, samples)
        predict_s += time.process_time() - decoded_s
        for found in predictions:
            if isinstance(found, BaseException):
                raise found
    return Bare(len(windows), time.perf_counter() - began_s, time.process_time() - spent_s, predict_cpu_s=predict_s)


def records(settings: Settings) -> list[Record]:
    """All records of the source topics in the order of the merge, partition after partition."""
    rows = {topic: row for row, topic in enumerate(settings.source_topics)}
    logs = [TopicPartition(topic, p) for topic in rows for p in range(settings.partitions)]
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest", enable_auto_commit=False)
    found = []
    try:
        consumer.assign(logs)
        ends = consumer.end_offsets(logs)
        while any(consumer.position(log) < ends[log] for log in logs):
            for log, batch in consumer.poll(1000).items():
                for message in batch:
                    found.append(
                        Record(
                            row=rows[log.topic],
                            partition=log.partition,
                            offset=message.offset,
                            log_time_us=message.timestamp * 1000,
                            key=message.key,
                            value=message.value,
                            headers=tuple(message.headers),
                        )
                    )
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.position))


def aligned(settings: Settings, found: list[Record]) -> Iterator[Window]:
    """The windows of records in merge order."""
    for partition in range(settings.partitions):
        own = (record for record in found if record.partition == partition)
        yield from simulated.aligned(own, settings, partition, settings.partitions)


if __name__ == "__main__":
    main()
