// Sends the given messages by node-rdkafka: `node send.js BROKER MESSAGES WAY`; prints those that it refuses.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import rdkafka from "node-rdkafka";

const [broker, file, way] = process.argv.slice(2);
const messages = JSON.parse(await readFile(file, "utf-8"));
const partitioner = way === "murmur2" ? { partitioner: "murmur2_random" } : {};
const producer = new rdkafka.Producer({ "bootstrap.servers": broker }, partitioner);
const ready = once(producer, "ready");
producer.connect();
await ready;
for (const message of messages) {
  const headers = Object.entries(message.headers).map(([name, text]) => ({ [name]: text }));
  try {
    producer.produce(message.topic, null, Buffer.from(message.data, "base64"), message.key, null, null, headers);
  } catch (error) {
    console.log(`${message.id}\t${error.name}: ${error.message.split("\n")[0]}`);
  }
}
await promisify(producer.flush.bind(producer))(60_000);
producer.disconnect();
