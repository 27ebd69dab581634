"""The table of commands, and the help that is made of it. Imports nothing, so that the help is there at once."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command of the table.

    Attributes:
        module: The module of ``streamer.cli`` that has a function of the command's name.
        summary: The first line of that function's docstring.
    """

    module: str
    summary: str


COMMANDS = {  # in the order of the help
    "up": Entry("servers", "Start Kafka and Redis on this machine."),
    "down": Entry("servers", "Stop what `streamer up` started."),
    "status": Entry("servers", "Show where Kafka and Redis are."),
    "doctor": Entry("operate", "Check everything that a worker needs."),
    "simulate": Entry("feeds", "Send simulated drives to Kafka, with faults on demand."),
    "replay": Entry("feeds", "Send recordings to Kafka."),
    "gateway": Entry("gateway", "Take records by HTTP and WebSocket, from devices with a token."),
    "capture": Entry("capture", "Send cameras and microphones to Kafka, live."),
    "record": Entry("golden", "Record a stretch of the source topics to a file."),
    "verify": Entry("golden", "Run a recording through alignment and the model, and compare."),
    "worker": Entry("servers", "Read Kafka, align, infer, publish to Redis."),
    "transcribe": Entry("servers", "Read sound from Kafka, write what is said to Kafka."),
    "train": Entry("models", "Train a model, on your data or on simulated drives."),
    "calibrate": Entry("models", "Measure what a model's weights know of their limits."),
    "learn": Entry("models", "Learn your labels from ten windows each, on frozen senses."),
    "evaluate": Entry("models", "Measure a model on held-out data: quality and speed."),
    "export": Entry("models", "Write a model in another form, beside its weights."),
    "forms": Entry("models", "Compare the forms of a model: answers, speed, size."),
    "senses": Entry("senses", "List pretrained networks: what is there, and how to get it."),
    "size": Entry("operate", "Compute partitions, workers, cores and bytes for many feeds."),
    "watch": Entry("results", "Show results as they come, a row for each session."),
    "dashboard": Entry("results", "Serve the live page: frames, sound, words and decisions."),
    "results": Entry("results", "Print the results of a session, oldest first."),
    "index": Entry("results", "Index published windows, for `streamer search`."),
    "search": Entry("results", "Find windows that are like words, a picture or a sound."),
    "describe": Entry("describe", "Describe each window in a sentence or two of plain English."),
    "speak": Entry("speak", "Say decisions and alarms aloud, when they change."),
    "sink": Entry("sinks", "Take results out: to a Kafka topic, a webhook, Parquet files."),
    "rules": Entry("rules", "Raise alarms by rules over results; list and acknowledge them."),
    "ask": Entry("describe", "Ask what happened in a stretch of a session's time."),
    "deadletters": Entry("operate", "List the records that could not be processed."),
    "forget": Entry("results", "Delete what Redis and the search index hold of a session."),
    "settings": Entry("operate", "Print the settings in effect, as TOML."),
    "demo": Entry("servers", "See the whole system at work, from cars to results."),
    "topics": Entry("servers", "Make the Kafka topics."),
}

HELP = """\
Usage: streamer [OPTIONS] COMMAND [ARGS]...

  Streaming multimodal event processor: Kafka in, fused PyTorch inference,
  Redis out.

  First steps: `streamer demo` shows everything at once. Or step by step:
  `streamer up`, `streamer topics create`, `streamer worker`, and in other
  terminals `streamer simulate` and `streamer watch`.

Options:
  --version  Print the version and leave.
  --help     Show this message and exit.

Commands:
{commands}

  Settings come from STREAMER_… variables and streamer.toml: see `streamer
  settings`.
"""


def help_text() -> str:
    """The text of ``streamer --help``, for 80 columns."""
    width = max(map(len, COMMANDS))
    return HELP.format(commands="\n".join(f"  {name:<{width}}  {entry.summary}" for name, entry in COMMANDS.items()))
