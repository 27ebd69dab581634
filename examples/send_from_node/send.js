// A device in JavaScript sends a frame and a block of telemetry: `npm install`, then `node send.js cab-7 frame.jpg`.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Kafka, Partitioners } from "kafkajs";

const [session, picture] = process.argv.slice(2);
const brokers = (process.env.STREAMER_KAFKA ?? "localhost:9092").split(",");
const prefix = process.env.STREAMER_TOPIC_PREFIX ?? "streamer";

// A record is a CloudEvent in Kafka's binary mode: its attributes are headers, its value is the payload as it is.
function record(type, contentType, value, takenAt) {
  const headers = {
    ce_specversion: "1.0",
    ce_id: randomUUID(),
    ce_source: `/devices/${encodeURIComponent(session)}`,
    ce_type: type,
    ce_time: takenAt.toISOString(),
    "content-type": contentType,
  };
  return { key: session, value, headers };
}

const now = new Date();
const frame = await readFile(picture);
const block = { rate_hz: 20, channels: { speed: { unit: "m/s", values: [13.9, 14.0, 14.2] } } };

// DefaultPartitioner places a key by murmur2 as Java's client does; LegacyPartitioner does not.
const kafka = new Kafka({ clientId: session, brokers, logLevel: 1 });
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
await producer.connect();
await producer.sendBatch({
  topicMessages: [
    { topic: `${prefix}.frames`, messages: [record("streamer.frame.v1", "image/jpeg", frame, now)] },
    {
      topic: `${prefix}.telemetry`,
      messages: [record("streamer.telemetry.v1", "application/json", JSON.stringify(block), now)],
    },
  ],
});
// Sent once everything else is in Kafka: the session ends, so that its last windows need not wait.
await producer.send({
  topic: `${prefix}.telemetry`,
  messages: [record("streamer.end.v1", "application/json", "", new Date())],
});
await producer.disconnect();
