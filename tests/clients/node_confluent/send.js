// Sends the given messages by Confluent's client: `node send.js BROKER MESSAGES WAY`; prints those that it refuses.
import { readFile } from "node:fs/promises";
import confluent from "@confluentinc/kafka-javascript";

const [broker, file, way] = process.argv.slice(2);
const messages = JSON.parse(await readFile(file, "utf-8"));
const partitioner = way === "murmur2" ? { partitioner: "murmur2_random" } : {};
const kafka = new confluent.KafkaJS.Kafka({ "bootstrap.servers": broker });
const producer = kafka.producer({ log_level: 0, ...partitioner });
await producer.connect();
for (const message of messages) {
  const value = Buffer.from(message.data, "base64");
  try {
    await producer.send({ topic: message.topic, messages: [{ key: message.key, value, headers: message.headers }] });
  } catch (error) {
    console.log(`${message.id}\t${error.name}: ${error.message.split("\n")[0]}`);
  }
}
await producer.disconnect();
