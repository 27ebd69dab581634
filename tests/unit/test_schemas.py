"""The wire contract in ``schemas/`` is valid, and says what the code does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from kafka.partitioner.default import murmur2
from referencing import Registry
from referencing.jsonschema import DRAFT7

from streamer import sensors
from streamer.align.decode import Decoder
from streamer.broker import deadletters, topics
from streamer.broker.deadletters import DeadLetter
from streamer.errors import BadRecord, Reason
from streamer.events import (
    AUDIO,
    END_TYPE,
    KIND_NAMES,
    KINDS,
    MAX_SESSION_BYTES,
    SPEECH_TYPE,
    TEXT,
    TICK_TYPE,
    TOPIC_RESULTS,
    TOPIC_SPEECH,
    Channel,
    ClosedBy,
    Record,
    Telemetry,
    TimeSource,
    Transcript,
    Window,
    Word,
)
from streamer.feeds.producer import Outgoing, end_record, headers
from streamer.kinds.telemetry import parse_telemetry
from streamer.kinds.text import parse_transcript
from streamer.result import Result
from streamer.rules.actions import TOPIC_ALARMS
from streamer.rules.alarm import Alarm
from streamer.settings import Settings
from streamer.sinks import events as sinks
from streamer.speak import records as speech
from streamer.speak.sentences import Severity, Utterance
from streamer.training.data.manifest import Line
from streamer.worker import handover
from tests import published
from tests.unit.worker.test_handover import windows

FOLDER = Path(__file__).parents[2] / "schemas"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
ASYNCAPI: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
SETTINGS = Settings()
LOG_TIME_US = 1_767_225_600_000_000
CONTENT_TYPES = {"audio/l16": "audio/L16;rate=16000;channels=1"}  # as the media type of the table is written in full


def pointed(document: Any, fragment: str) -> Any:
    for part in fragment.strip("/").split("/") if fragment else []:
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a Reference Object of the AsyncAPI document stands for."""
    while "$ref" in node:
        file, _, fragment = node["$ref"].partition("#")
        node = pointed(SCHEMAS[file.removeprefix("./")] if file else ASYNCAPI, fragment)
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas inside it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in ("items", "additionalProperties", "propertyNames", "if", "then", "not"):
        yield from subschemas(schema.get(keyword))
    for keyword in ("anyOf", "oneOf", "allOf"):
        for child in schema.get(keyword, []):
            yield from subschemas(child)
    for keyword in ("properties", "$defs"):
        for child in schema.get(keyword, {}).values():
            yield from subschemas(child)


# ---- the files themselves


def test_these_schemas_are_there() -> None:
    assert set(SCHEMAS) == {
        *(
            "transcript.json",
            "telemetry.json",
            "result.json",
            "deadletter.json",
            "manifest.json",
            "window.json",
            "description.json",
        )
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_in_its_own_draft_and_in_that_of_asyncapi(name: str) -> None:
    assert SCHEMAS[name]["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(SCHEMAS[name])
    Draft7Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_means_the_same_in_draft_07_as_in_2020_12(name: str) -> None:
    known_to_both = {
        *("$schema", "$ref", "title", "description", "default", "examples", "type", "enum", "const", "format"),
        *("properties", "required", "additionalProperties", "propertyNames", "minProperties"),
        *("items", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "contentEncoding"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "allOf", "anyOf", "oneOf"),
    }
    for schema in subschemas(SCHEMAS[name]):
        assert set(schema) - {"$defs"} <= known_to_both
        assert not isinstance(schema.get("items"), list)
        if "$ref" in schema:
            assert set(schema) == {"$ref"}, "draft 07 passes over what stands beside $ref"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_examples_of_a_schema_are_examples(name: str) -> None:
    assert SCHEMAS[name]["examples"]
    for instance in SCHEMAS[name]["examples"]:
        assert accepts(name, instance)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_property_has_a_description(name: str) -> None:
    for key, schema in SCHEMAS[name]["properties"].items():
        assert schema.get("description"), key


@pytest.mark.parametrize("name", [*SCHEMAS, "asyncapi.yaml"])
def test_every_reference_leads_somewhere(name: str) -> None:
    own = SCHEMAS.get(name, ASYNCAPI)
    for reference in references(own):
        file, _, fragment = reference.partition("#")
        assert isinstance(pointed(SCHEMAS[file.removeprefix("./")] if file else own, fragment), dict), reference


# ---- schema and Python type agree

STRUCTS = [
    ("transcript.json", "", Transcript),
    ("transcript.json", "/$defs/word", Word),
    ("telemetry.json", "", Telemetry),
    ("telemetry.json", "/$defs/channel", Channel),
    ("deadletter.json", "", DeadLetter),
    ("manifest.json", "", Line),
    ("window.json", "", handover.WindowRecord),
    ("window.json", "/$defs/member", handover.Member),
]


@pytest.mark.parametrize(("name", "pointer", "struct"), STRUCTS)
def test_a_schema_has_the_fields_of_its_struct_with_their_defaults(
    name: str, pointer: str, struct: type[msgspec.Struct]
) -> None:
    schema = pointed(SCHEMAS[name], pointer)
    fields = msgspec.structs.fields(struct)
    assert set(schema["properties"]) == {field.name for field in fields}
    assert schema["required"] == [field.name for field in fields if field.required]
    for field in fields:
        if not field.required:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            told = schema["properties"][field.name]["default"]
            assert told == (list(default) if isinstance(default, tuple) else default)


def accepts(name: str, instance: Any) -> bool:
    """Whether the schema takes it, read as draft 2020-12 and as the draft 07 of AsyncAPI."""
    verdicts = {VALIDATORS[name, draft].is_valid(instance) for draft in (Draft202012Validator, Draft7Validator)}
    assert len(verdicts) == 1, "the two drafts differ"
    return verdicts.pop()


VALIDATORS = {
    (name, draft): draft(schema)
    for name, schema in SCHEMAS.items()
    for draft in (Draft202012Validator, Draft7Validator)
}

# What the two schemas cannot say, by the words in which bodies.py refuses it.
UNSAYABLE = ("are no span of seconds", "is outside the transcript", "equally long", "times must ascend", "times for ")

seconds = st.one_of(
    st.floats(0, 10),
    st.integers(0, 10),
    st.sampled_from([-1e9, 1e9, 999_999_999.5, -999_999_999, 10**9, -(10**9), 0.0, -0.0]),
)
values = st.lists(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70)), max_size=3)
words = st.fixed_dictionaries({"text": st.text(max_size=3), "start": seconds, "end": seconds})
transcripts = st.fixed_dictionaries(
    {"text": st.text(max_size=5)},
    optional={
        "start": seconds,
        "end": st.one_of(seconds, st.none()),
        "words": st.lists(words, max_size=2),
        "language": st.one_of(st.none(), st.just("en")),
        "confidence": st.one_of(st.none(), st.floats(-0.5, 1.5), st.sampled_from([0, 1, 2])),
    },
)
channels = st.fixed_dictionaries({"values": values}, optional={"unit": st.sampled_from(["m/s", ""])})
telemetry_blocks = st.fixed_dictionaries(
    {"channels": st.dictionaries(st.text(max_size=3), channels, max_size=2)},
    optional={
        "times": st.one_of(st.none(), st.lists(seconds, max_size=3, unique=True).map(sorted)),
        "rate_hz": st.one_of(st.none(), st.floats(-1, 100), st.sampled_from([0, 20, 5e-324])),
        "start": seconds,
    },
)


@st.composite
def good_transcripts(draw: st.DrawFn) -> dict[str, Any]:
    start, *inner, end = sorted(draw(st.lists(st.floats(-10, 10) | st.integers(-10, 10), min_size=4, max_size=4)))
    said = [{"text": draw(st.text(max_size=3)), "start": inner[0], "end": inner[1]}]
    rest = {"end": end, "words": said, "language": "en", "confidence": draw(st.floats(0, 1))}
    return {"text": draw(st.text(max_size=5)), "start": start, **draw(subset(rest))}


@st.composite
def good_blocks(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 3))
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
    channel = st.fixed_dictionaries(
        {"values": st.lists(number, min_size=count, max_size=count)}, optional={"unit": st.just("m/s")}
    )
    block = {"channels": draw(st.dictionaries(st.text(max_size=3), channel, min_size=1, max_size=2))}
    if draw(st.booleans()):
        return {**block, "rate_hz": draw(st.floats(0.01, 1e4) | st.integers(1, 100)), "start": draw(st.floats(-9, 9))}
    times = draw(st.lists(st.integers(-10, 10) | st.floats(-9, 9), min_size=count, max_size=count, unique=True))
    return {**block, "times": sorted(times)}


def subset(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sets(st.sampled_from(sorted(whole))).map(lambda keys: {key: whole[key] for key in keys})


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2), st.text(max_size=2)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in pairs] + [place for _, child in pairs for place in places(child)]


@st.composite
def mutated(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """A document, as it is or with one thing replaced, removed or added somewhere."""
    document = copy.deepcopy(draw(documents))
    change = draw(st.sampled_from(["none", "replace", "remove", "add"]))
    found = places(document)
    if change == "none" or not found:
        return document
    container, key = draw(st.sampled_from(found))
    if change == "replace":
        container[key] = draw(junk)
    elif change == "remove":
        del container[key]
    elif isinstance(container, dict):
        container[draw(st.sampled_from(["extra", "", "end", "rate_hz", "unit"]))] = draw(junk)
    return document


def refusal(parse: Any, instance: Any) -> BadRecord | None:
    try:
        parse(json.dumps(instance).encode())
    except BadRecord as error:
        return error
    return None


def agree(name: str, parse: Any, instance: Any) -> None:
    error = refusal(parse, instance)
    if accepts(name, instance):
        assert error is None or any(words in error.detail for words in UNSAYABLE), error
    else:
        assert error is not None
        assert error.reason is Reason.BAD_PAYLOAD
        assert not any(words in error.detail for words in UNSAYABLE), f"the schema can say that: {error}"


@settings(max_examples=600, deadline=None)
@given(mutated(good_transcripts() | transcripts))
@example({"text": "a", "end": 1, "x": {"more": [1]}})
@example({"text": "a", "start": True})
@example({"text": "a", "words": None})
@example({"text": "a", "confidence": 1})
@example([])
@example(None)
def test_schema_and_decoding_take_the_same_transcripts(instance: Any) -> None:
    agree("transcript.json", parse_transcript, instance)


@settings(max_examples=600, deadline=None)
@given(mutated(good_blocks() | telemetry_blocks))
@example({"channels": {"a": {"values": [1]}}, "rate_hz": 1, "times": None})
@example({"channels": {"a": {"values": [1]}}, "rate_hz": None, "times": None})
@example({"channels": {"a": {"values": [1]}}, "rate_hz": 1, "times": [0]})
@example({"channels": {"a": {"values": [1, True]}}, "rate_hz": 1})
@example({"channels": {"a": {"values": [1], "more": 1}}, "times": [0], "more": 1})
@example({"channels": {}, "rate_hz": 1})
@example("")
def test_schema_and_decoding_take_the_same_telemetry(instance: Any) -> None:
    agree("telemetry.json", parse_telemetry, instance)


@settings(max_examples=200, deadline=None)
@given(good_transcripts(), good_blocks())
def test_schema_and_decoding_take_good_bodies_and_what_python_makes_of_them(said: Any, block: Any) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("transcript.json", parse_transcript, said),
        ("telemetry.json", parse_telemetry, block),
    ]
    for name, parse, instance in pairs:
        assert accepts(name, instance)
        body, span = parse(json.dumps(instance).encode())
        again = msgspec.json.encode(body)
        assert accepts(name, json.loads(again))
        assert parse(again) == (body, span)


# ---- what comes out

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
scores = st.floats(0, 1)
instants = st.integers(0, 2**53)
label_scores = st.dictionaries(names, scores, max_size=3)
decisions = st.one_of(
    st.fixed_dictionaries({"label": names, "score": scores, "scores": label_scores}),
    st.fixed_dictionaries({"labels": st.lists(names, unique=True, max_size=3), "scores": label_scores}),
    st.fixed_dictionaries({"value": st.floats(allow_nan=False, allow_infinity=False), "unit": st.just("m")}),
)
results = st.builds(
    Result,
    session=names,
    start_us=instants,
    end_us=instants,
    closed_by=st.sampled_from(list(map(str, ClosedBy))),
    present=st.lists(st.sampled_from(KIND_NAMES), unique=True).map(tuple),
    coverage=st.fixed_dictionaries(dict.fromkeys(KIND_NAMES, scores)),
    members=st.dictionaries(
        st.sampled_from(SETTINGS.source_topics),
        st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=3).map(tuple),
    ),
    outputs=st.dictionaries(names, decisions, max_size=2),
    embedding=st.binary(max_size=20),
    model=names,
    version=names,
    status=st.sampled_from(["ok", "partial", "failed", "empty"]),
    latencies_us=st.dictionaries(st.sampled_from(["align", "batch", "total"]), st.integers(0, 10**9)),
    final=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(results, st.booleans())
def test_every_result_is_what_its_schema_describes(result: Result, embedding: bool) -> None:
    told = json.loads(result.to_json(embedding))
    assert accepts("result.json", told)
    properties = set(SCHEMAS["result.json"]["properties"])
    assert set(told) == (properties if embedding else properties - {"embedding"})


def test_a_result_always_has_all_but_its_embedding() -> None:
    schema = SCHEMAS["result.json"]
    assert {*schema["required"], "embedding"} == set(schema["properties"]) == {"id", *Result.__struct_fields__}


@pytest.mark.parametrize(
    "wrong",
    [
        {"closed_by": "chance"},
        {"status": "odd"},
        {"present": ["Smell"]},
        {"coverage": {"a__b": 0.5}},
        {"coverage": {"image": 1.5}},
        {"members": {"streamer.frames": [[1, 2, 3]]}},
        {"outputs": {"action": {"label": "brake"}}},
        {"outputs": {"hazards": {"labels": "siren", "scores": {"siren": 0.9}}}},
        {"outputs": {"hazards": {"labels": ["siren"], "scores": {"siren": 1.9}}}},
        {"outputs": {"distance": {"value": 3.0}}},
        {"outputs": {"distance": {"value": "3", "unit": "m"}}},
        {"embedding": "no base64!"},
        {"start_us": 0.5},
        {"id": "without an end"},
        {"latencies_us": {"align": -1}},
    ],
)
def test_the_schema_refuses_a_result_with_something_wrong(wrong: dict[str, Any]) -> None:
    good = SCHEMAS["result.json"]["examples"][0]
    assert not accepts("result.json", {**good, **wrong})


def test_the_schema_tells_the_reasons_for_closing_and_how_sensors_may_be_called() -> None:
    schema = SCHEMAS["result.json"]
    assert schema["properties"]["closed_by"]["enum"] == list(map(str, ClosedBy))
    assert_names(schema["$defs"]["sensor"])


def assert_names(schema: dict[str, Any]) -> None:
    assert (schema["pattern"], schema["maxLength"]) == (f"^{sensors.NAME.pattern}$", sensors.MAX_NAME)


letters = st.builds(
    lambda record, reason, detail, cut: _letter(record, reason, detail, cut),
    st.builds(
        Record,
        row=st.integers(0, 3),
        partition=st.integers(0, 100),
        offset=st.integers(0, 2**62),
        log_time_us=st.integers(0, 2**53),
        key=st.one_of(st.none(), st.binary(max_size=10)),
        value=st.binary(max_size=10),
        headers=st.lists(
            st.tuples(st.sampled_from(["ce_id", "ce_type", "ce_source", "x"]), st.binary(max_size=6)), max_size=4
        ).map(tuple),
    ),
    st.sampled_from(Reason),
    st.text(max_size=2000),
    st.booleans(),
)


def _letter(record: Record, reason: Reason, detail: str, cut: bool) -> deadletters.Letter:
    letter = deadletters.dead_letter(record, reason, detail, SETTINGS.source_topics[record.row])
    return letter.without_value() if cut else letter


@settings(max_examples=200, deadline=None)
@given(letters)
def test_every_dead_letter_is_what_its_schemas_describe(letter: deadletters.Letter) -> None:
    message = deadletters.KafkaMessage(letter.key, letter.value, list(letter.headers))
    told = json.loads(msgspec.json.encode(deadletters._parsed(message)))
    assert accepts("deadletter.json", told)
    assert set(told) == set(SCHEMAS["deadletter.json"]["properties"])
    assert headers_accepted("deadletterHeaders", own(letter))


@settings(max_examples=50, deadline=None)
@given(letters, st.integers(0, 2**60))
def test_every_late_record_has_the_headers_that_are_described(letter: deadletters.Letter, late_by_us: int) -> None:
    record = Record(0, 1, 2, LOG_TIME_US, letter.key, letter.value, ())
    late = deadletters.late(record, late_by_us, "streamer.frames")
    for sent in (late, late.without_value()):
        assert headers_accepted("lateHeaders", own(sent))


def own(letter: deadletters.Letter) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers if name in deadletters.OWN_HEADERS}


def test_the_headers_of_dead_letters_and_late_records_are_those_of_the_code() -> None:
    schemas = ASYNCAPI["components"]["schemas"]
    described = {name for key in ("origin", "lateHeaders", "deadletterHeaders") for name in schemas[key]["properties"]}
    assert described == deadletters.OWN_HEADERS
    assert schemas["deadletterHeaders"]["properties"]["deadletter_detail"]["maxLength"] == deadletters.DETAIL_MAX


def test_the_reasons_of_dead_letters_are_those_of_the_code() -> None:
    reasons = list(map(str, Reason))
    assert SCHEMAS["deadletter.json"]["properties"]["reason"]["enum"] == reasons
    headers_schema = ASYNCAPI["components"]["schemas"]["deadletterHeaders"]
    assert headers_schema["properties"]["deadletter_reason"]["enum"] == reasons


# ---- the AsyncAPI document

# Field names of AsyncAPI 3.0.0 that this document may use, and those that it must, an object kind each.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "document": (
        {"asyncapi", "info"},
        {"id", "servers", "defaultContentType", "channels", "operations", "components"},
    ),
    "info": ({"title", "version"}, {"description", "termsOfService", "contact", "license", "tags", "externalDocs"}),
    "server": ({"host", "protocol"}, {"title", "summary", "description", "protocolVersion", "pathname", "bindings"}),
    "channel": (
        set(),
        {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags", "bindings"},
    ),
    "operation": (
        {"action", "channel"},
        {"title", "summary", "description", "messages", "bindings", "security", "tags", "traits", "reply"},
    ),
    "message": (
        set(),
        {"headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description", "bindings"},
    ),
    "components": (
        set(),
        {"schemas", "messages", "channelBindings", "messageBindings", "operationBindings"},
    ),
    "kafka channel": (set(), {"topic", "partitions", "replicas", "topicConfiguration", "bindingVersion"}),
    "kafka operation": (set(), {"groupId", "clientId", "bindingVersion"}),
    "kafka message": (set(), {"key", "bindingVersion"}),
}


def has_fields(kind: str, node: dict[str, Any]) -> None:
    required, optional = FIELDS[kind]
    assert required <= set(node), f"{kind} lacks {required - set(node)}"
    assert set(node) <= required | optional, f"{kind} has {set(node) - required - optional}"


def test_the_document_is_made_of_the_objects_of_asyncapi_3() -> None:
    has_fields("document", ASYNCAPI)
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    has_fields("info", ASYNCAPI["info"])
    has_fields("components", ASYNCAPI["components"])
    for kind, nodes in (
        ("server", ASYNCAPI["servers"]),
        ("channel", ASYNCAPI["channels"]),
        ("operation", ASYNCAPI["operations"]),
        ("message", ASYNCAPI["components"]["messages"]),
        ("kafka channel", bindings("channelBindings")),
        ("kafka operation", bindings("operationBindings")),
        ("kafka message", bindings("messageBindings")),
    ):
        assert nodes
        for node in nodes.values():
            has_fields(kind, node)


def bindings(kind: str) -> dict[str, Any]:
    found = {}
    for name, binding in ASYNCAPI["components"][kind].items():
        assert set(binding) == {"kafka"}
        assert binding["kafka"]["bindingVersion"] == "0.5.0"
        found[name] = binding["kafka"]
    return found


def test_operations_refer_to_channels_and_to_messages_of_that_channel() -> None:
    for name, operation in ASYNCAPI["operations"].items():
        assert operation["action"] in ("send", "receive")
        reference = operation["channel"]["$ref"]
        assert reference.startswith("#/channels/"), name
        assert operation["messages"], name
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{reference}/messages/"), name


def test_channels_refer_to_servers_and_to_messages_of_the_components() -> None:
    for name, channel in ASYNCAPI["channels"].items():
        assert all(server["$ref"].startswith("#/servers/") for server in channel["servers"]), name
        for message in channel["messages"].values():
            assert message["$ref"].startswith("#/components/messages/"), name


def test_every_message_of_a_channel_is_sent_or_received_and_every_component_used() -> None:
    operated = {message["$ref"] for operation in ASYNCAPI["operations"].values() for message in operation["messages"]}
    offered = {
        f"#/channels/{name}/messages/{key}"
        for name, channel in ASYNCAPI["channels"].items()
        for key in channel["messages"]
    }
    assert operated == offered
    used = set(references(ASYNCAPI))
    for kind, components in ASYNCAPI["components"].items():
        for name in components:
            assert f"#/components/{kind}/{name}" in used, name


def test_the_schemas_inside_the_document_are_schemas() -> None:
    for name, schema in ASYNCAPI["components"]["schemas"].items():
        Draft7Validator.check_schema(schema)
        if name.endswith("Headers"):
            assert schema["type"] == "object", "AsyncAPI wants headers to be an object"


def kafka_channels() -> dict[str, Any]:
    return {
        name: channel
        for name, channel in ASYNCAPI["channels"].items()
        if channel["servers"][0]["$ref"].endswith("/kafka")
    }


def test_the_topics_are_those_that_the_code_makes_with_their_configuration() -> None:
    own = (topics._own(SETTINGS, suffix) for suffix in (TOPIC_ALARMS, TOPIC_SPEECH, TOPIC_RESULTS))
    wanted = {topic.name: topic for topic in [*topics._wanted(SETTINGS), *own]}
    told = {channel["address"]: resolved(channel["bindings"])["kafka"] for channel in kafka_channels().values()}
    assert set(told) == set(wanted)
    for name, binding in told.items():
        assert binding["partitions"] == SETTINGS.partitions
        assert binding["replicas"] == SETTINGS.replication
        assert binding["topicConfiguration"] == {
            topics.TIMESTAMP_TYPE: topics.LOG_APPEND_TIME,
            topics.MAX_BYTES: wanted[name].max_message_bytes,
        }


def test_results_are_told_on_the_pub_sub_channel_of_the_code() -> None:
    from streamer.store.results import Keys

    channel = ASYNCAPI["channels"]["results"]
    assert channel["address"] == Keys(SETTINGS.key_prefix).channel
    assert resolved(resolved(channel["messages"]["result"])["payload"]) is SCHEMAS["result.json"]


def test_descriptions_are_told_on_the_pub_sub_channel_of_the_code_as_their_schema_says() -> None:
    from streamer.store.descriptions import Description
    from streamer.store.results import Keys

    channel = ASYNCAPI["channels"]["descriptions"]
    schema = SCHEMAS["description.json"]
    assert channel["address"] == Keys(SETTINGS.key_prefix).described_channel
    assert resolved(resolved(channel["messages"]["description"])["payload"]) is schema
    assert set(schema["required"]) == set(schema["properties"]) == {"id", *Description.__struct_fields__}
    told = Description("räume/7", 0, 1_000_000, "Action is brake.", "outputs", "a note")
    assert accepts("description.json", json.loads(told.to_json()))
    fields = {name.encode(): value.encode() for name, value in told.to_fields().items()}
    assert Description.from_fields({**fields, b"new": b"1"}) == told


def test_a_key_is_as_long_as_a_session_may_be() -> None:
    assert ASYNCAPI["components"]["schemas"]["session"]["maxLength"] == MAX_SESSION_BYTES


def test_the_limits_that_are_told_are_the_defaults() -> None:
    text = " ".join((FOLDER / "asyncapi.yaml").read_text().split())
    for told, limit in (
        ("at most a minute (setting `max_event_ms`)", SETTINGS.max_event_ms == 60_000),
        ("at most 5 s (setting `max_ahead_ms`)", SETTINGS.max_ahead_ms == 5_000),
        ("at most 8 MiB", SETTINGS.max_message_bytes == 8 << 20),
        ("about 10,000 a session", SETTINGS.results_maxlen == 10_000),
    ):
        assert told in text
        assert limit, told
    assert bindings("operationBindings")["worker"]["groupId"]["enum"] == [SETTINGS.group]
    infer = SETTINGS.model_copy(update={"role": "infer"})
    assert bindings("operationBindings")["infer"]["groupId"]["enum"] == [infer.consumer_group]


# ---- windows between roles


@settings(max_examples=30, deadline=None)
@given(windows())
def test_every_handed_over_window_is_what_its_schema_describes(window: Window) -> None:
    flags = [[number % 2 == 0 for number, _ in enumerate(events)] for events in window.events]
    value = handover.encode(window, flags, closed_us=1, fingerprint="f", trim_below_us=2, lost_until_us=0)
    told = msgspec.msgpack.decode(value)
    assert accepts("window.json", msgspec.to_builtins(told, str_keys=True))  # bin becomes base64
    headers = {name: text.decode() for name, text in handover.headers(window)}
    assert headers_accepted("windowHeaders", headers)
    assert set(told.get("members", {})) == {
        name for name, events in zip(window.sensors.names, window.events, strict=True) if events
    }
    assert_names(SCHEMAS["window.json"]["$defs"]["sensor"])
    assert SCHEMAS["window.json"]["properties"]["sensors"]["additionalProperties"]["enum"] == list(KIND_NAMES)
    assert SCHEMAS["window.json"]["properties"]["closed_by"]["enum"] == [str(reason) for reason in ClosedBy]


# ---- speech


@settings(max_examples=30, deadline=None)
@given(names, st.integers(0, 2**52), names, st.sampled_from(Severity), *[st.one_of(st.just(""), names)] * 2)
def test_every_sentence_said_aloud_has_the_headers_that_are_told(
    session: str, end_us: int, text: str, severity: Severity, supersedes: str, rule: str
) -> None:
    found = speech.headers(Utterance(session, end_us, text, severity, supersedes, rule), 1)
    assert headers_accepted("speechHeaders", {name: value.decode() for name, value in found})
    told = ASYNCAPI["components"]["schemas"]["speechHeaders"]["properties"]
    assert told["ce_severity"]["enum"] == [severity.name.lower() for severity in Severity]
    assert told["ce_type"]["const"] == SPEECH_TYPE


# ---- results on their way out


@settings(max_examples=30, deadline=None)
@given(names, st.integers(0, 2**37))
def test_every_result_in_kafka_has_the_headers_and_the_payload_that_are_told(session: str, number: int) -> None:
    one = published.result(session, number)
    found = {name: value.decode() for name, value in sinks.headers(one)}
    assert headers_accepted("resultHeaders", found)
    assert found["ce_type"] == ASYNCAPI["components"]["schemas"]["resultHeaders"]["properties"]["ce_type"]["const"]
    assert accepts("result.json", json.loads(one.to_json(embedding=True)))
    assert accepts("result.json", json.loads(sinks.structured(one))["data"])


def test_an_alarm_is_as_it_is_told() -> None:
    told = ASYNCAPI["components"]["schemas"]["alarmEvent"]
    alarm = Alarm("hazard", "alarm", "Straße 7/€", 0, 1_000_000, "Hazard ahead.")
    event = json.loads(alarm.event())
    Draft7Validator(told, format_checker=FormatChecker()).validate(event)
    assert set(event["data"]) == set(told["properties"]["data"]["properties"])
    assert headers_accepted("alarmEvent", {**event, "type": "streamer.other.v1"}) is False


# ---- headers

_REGISTRY: Registry[Any] = Registry().with_resource("asyncapi", DRAFT7.create_resource(ASYNCAPI))


def headers_accepted(name: str, given: dict[str, str]) -> bool:
    schema = {"$ref": f"asyncapi#/components/schemas/{name}"}
    return Draft7Validator(schema, registry=_REGISTRY, format_checker=FormatChecker()).is_valid(given)


def headers_of(row: int) -> str:
    """Name of the header schema of a kind's data, by way of its channel."""
    channel = ASYNCAPI["channels"][KINDS[row].topic]
    (data,) = (resolved(message) for key, message in channel["messages"].items() if key not in ("end", "tick"))
    return str(data["headers"]["$ref"].rsplit("/", 1)[1])


def test_every_source_topic_takes_one_data_message_and_the_control_records() -> None:
    for row, kind in enumerate(KINDS):
        channel = ASYNCAPI["channels"][kind.topic]
        assert channel["address"] == SETTINGS.source_topics[row]
        assert len(channel["messages"]) == 3
        assert {"end", "tick"} < set(channel["messages"])
        assert ASYNCAPI["components"]["schemas"][headers_of(row)]["properties"]["ce_type"]["const"] == kind.ce_type
    schemas = ASYNCAPI["components"]["schemas"]
    assert schemas["endHeaders"]["properties"]["ce_type"]["const"] == END_TYPE
    assert schemas["tickHeaders"]["properties"]["ce_type"]["const"] == TICK_TYPE


BASE = {
    "ce_specversion": "1.0",
    "ce_id": "1",
    "ce_source": "/devices/cab-7",
    "ce_time": "2026-01-01T00:00:00.000001Z",
    "ce_durationus": "1000",
    "ce_sequence": "7",
}
PAYLOADS = (
    b"\xff\xd8",
    b"\0\0",
    b'{"text": "a"}',
    b'{"channels": {"a": {"values": [1]}}, "rate_hz": 20}',
)


def taken(row: int, given: dict[str, str], value: bytes | None = None) -> bool:
    """Whether the decoder takes a record with these headers and a good payload."""
    value = (b"" if "ce_dataref" in given else PAYLOADS[row]) if value is None else value
    partition = (murmur2(b"cab-7") & 0x7FFFFFFF) % 12
    record = Record(
        row, partition, 0, LOG_TIME_US, b"cab-7", value, tuple((name, text.encode()) for name, text in given.items())
    )
    settings = Settings(dataref_prefixes=("s3://clips",))
    try:
        Decoder(settings, 12).decode(record)
    except BadRecord:
        return False
    return True


def both(row: int, given: dict[str, str]) -> bool:
    """What header schema and decoder say of the headers, which must be the same."""
    told = headers_accepted(headers_of(row), given)
    assert taken(row, given) == told, given
    return told


@pytest.mark.parametrize("row", range(len(KINDS)))
def test_a_topic_takes_the_content_types_of_its_modality_and_no_others(row: int) -> None:
    for other in KINDS:
        for media_type in other.content_types:
            given = {**BASE, "ce_type": KINDS[row].ce_type}
            given["content-type"] = CONTENT_TYPES.get(media_type, media_type)
            assert both(row, given) == (media_type in KINDS[row].content_types), media_type


def good(row: int, content_type: int = 0) -> dict[str, str]:
    media_type = KINDS[row].content_types[content_type]
    return {
        **BASE,
        "ce_type": KINDS[row].ce_type,
        "content-type": CONTENT_TYPES.get(media_type, media_type),
    }


@pytest.mark.parametrize("row", range(len(KINDS)))
def test_schema_and_decoder_need_the_same_headers(row: int) -> None:
    needed = {name for name in good(row) if not both(row, {k: v for k, v in good(row).items() if k != name})}
    assert needed == {"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"}


@pytest.mark.parametrize("row", range(len(KINDS)))
def test_compressed_audio_and_claim_checks_need_their_length(row: int) -> None:
    last = len(KINDS[row].content_types) - 1
    without = {name: text for name, text in good(row, last).items() if name != "ce_durationus"}
    assert both(row, without) == (row != AUDIO)
    claim = {"ce_dataref": "s3://clips/a"}
    assert both(row, {**good(row), **claim})
    plain = {name: text for name, text in {**good(row), **claim}.items() if name != "ce_durationus"}
    assert both(row, plain) == (row == 0)


@pytest.mark.parametrize(
    ("name", "text", "is_good"),
    [
        ("ce_specversion", "0.3", False),
        ("ce_id", "", False),
        ("ce_source", "", False),
        ("ce_type", "streamer.video.v1", False),
        ("ce_time", "2026-01-01T00:00:00+00:00", True),
        ("ce_time", "2025-12-31t23:00:00.5z", True),
        ("ce_time", "2026-01-01T00:00:00", False),
        ("ce_time", "2026-01-01T24:00:00Z", False),
        ("ce_time", "2026-01-01T00:00:00+00:60", False),
        ("ce_time", "1767225600", False),
        ("ce_durationus", "0", True),
        ("ce_durationus", "-1", False),
        ("ce_durationus", "1.5", False),
        ("ce_durationus", "", False),
        ("ce_sequence", "999999999999999999", True),
        ("ce_sequence", "1000000000000000000", False),
        ("ce_sequence", "one", False),
        ("ce_dataref", "s3://clips/a b", False),
        ("ce_timesource", "rtcp", True),
        ("ce_traceparent", "00-1", True),
        ("x", "anything", True),
    ],
)
@pytest.mark.parametrize("row", range(len(KINDS)))
def test_schema_and_decoder_agree_on_a_headers_value(row: int, name: str, text: str, is_good: bool) -> None:
    assert both(row, {**good(row), name: text}) == is_good


@pytest.mark.parametrize(
    ("content_type", "is_good"),
    [
        ("audio/L16;rate=8000", True),
        ("audio/L16;rate=48000;channels=2", False),  # the payload is one sample
        ("audio/L16", False),
        ("audio/L16;rate=999", False),
        ("audio/L16;rate=0x10", False),
        ("audio/L16;channels=1", False),
    ],
)
def test_schema_and_decoder_agree_on_the_parameters_of_raw_audio(content_type: str, is_good: bool) -> None:
    given = {**good(AUDIO), "content-type": content_type}
    if "channels=2" in content_type:
        assert headers_accepted(headers_of(AUDIO), given)
        assert taken(AUDIO, given, bytes(4))
        assert not taken(AUDIO, given, bytes(2))
    else:
        assert both(AUDIO, given) == is_good


@pytest.mark.parametrize("row", range(len(KINDS)))
@pytest.mark.parametrize("sequence", [None, 0, 12])
def test_what_the_producer_sends_is_as_described(row: int, sequence: int | None) -> None:
    content_type = good(row)["content-type"]
    sent = Outgoing(row, "cab 7/ä", LOG_TIME_US, b"x", content_type, 0, duration_us=10, sequence=sequence)
    assert headers_accepted(headers_of(row), {name: value.decode() for name, value in headers(sent)})
    end = {name: value.decode() for name, value in headers(end_record("cab 7/ä", LOG_TIME_US, 0))}
    assert headers_accepted("endHeaders", end)
    assert not headers_accepted("tickHeaders", end)


def test_every_header_of_data_is_described() -> None:
    schemas = ASYNCAPI["components"]["schemas"]
    described = {*schemas["cloudEvent"]["properties"], *schemas["data"]["properties"]}
    assert described == {*BASE, "ce_type", "content-type", "ce_dataref", "ce_sensor", "ce_timesource"}
    assert schemas["data"]["properties"]["ce_timesource"]["examples"] == list(map(str, TimeSource))


def test_transcripts_and_telemetry_point_to_their_schemas() -> None:
    messages = ASYNCAPI["components"]["messages"]
    for row, name in ((TEXT, "transcript"), (3, "telemetry")):
        assert ASYNCAPI["channels"][KINDS[row].topic]["messages"][name]["$ref"].endswith(f"/{name}")
        assert resolved(messages[name]["payload"]) is SCHEMAS[f"{name}.json"]
