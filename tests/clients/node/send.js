// Sends the given messages by kafkajs: `node send.js BROKER MESSAGES WAY`; prints those that it refuses.
import { readFile } from "node:fs/promises";
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, Partitioners } from "kafkajs";

const [broker, file, way] = process.argv.slice(2);
const [partitioner, sdk] = way.split("+");
const messages = JSON.parse(await readFile(file, "utf-8"));

function event(message) {
  const data = Buffer.from(message.data, "base64");
  const isJson = message.contentType === "application/json" && data.length > 0;
  return new CloudEvent({
    id: message.id,
    source: message.source,
    type: message.type,
    time: message.time,
    datacontenttype: message.contentType,
    sequence: message.sequence,
    ...(message.key === null ? {} : { partitionkey: message.key }),
    data: isJson && sdk !== "text" ? JSON.parse(data) : data,
  });
}

function record(message) {
  if (sdk === undefined) {
    return { key: message.key, value: Buffer.from(message.data, "base64"), headers: message.headers };
  }
  if (sdk === "structured") {
    return Binding.structured(event(message));
  }
  const { headers, key, value } = Binding.binary(event(message));
  if (sdk === "binary") {
    return { headers, key, value };
  }
  // What is not set is left out, and every value is a text.
  const set = Object.entries(headers).filter(([, text]) => text !== undefined);
  return { headers: Object.fromEntries(set.map(([name, text]) => [name, String(text)])), key, value };
}

process.env.KAFKAJS_NO_PARTITIONER_WARNING = "1";
const kafka = new Kafka({ brokers: [broker], logLevel: 0 });
const options = partitioner === "legacy" ? { createPartitioner: Partitioners.LegacyPartitioner } : {};
const producer = kafka.producer(options);
await producer.connect();
for (const message of messages) {
  try {
    await producer.send({ topic: message.topic, messages: [record(message)] });
  } catch (error) {
    console.log(`${message.id}\t${error.name}: ${error.message.split("\n")[0]}`);
  }
}
await producer.disconnect();
