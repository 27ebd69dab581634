#!/usr/bin/env bash
# cloudevents 10.0.0 (JavaScript): Kafka.binary makes a header of each property of an event, also of those that are not
# set, with the value undefined, and leaves numbers as numbers. kafkajs 2.2.4 can encode neither, so a right event with no
# subject cannot be sent as it comes. JSON data that was given as an object is the message's value as that object, which
# kafkajs cannot encode either. What helps: leave out what is undefined, String() of the rest, JSON.stringify of the data.
#
# Seen on Node.js 20:
#   undefined: content-type ce_datacontenttype ce_subject …
#   a header undefined: TypeError
#   a header 7: TypeError
#   a value that is an object: TypeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund cloudevents@10.0.0 kafkajs@2.2.4
node - <<'JAVASCRIPT'
const assert = require("node:assert");
const { CloudEvent, Kafka } = require("cloudevents");
const Record = require("kafkajs/src/protocol/recordBatch/record/v0");

const data = { text: "straight on" };
const event = new CloudEvent({ source: "/a", type: "b", id: "c", sequence: 7, partitionkey: "car-7", data });
const { headers, key, value } = Kafka.binary(event);
const names = Object.keys(headers).filter((name) => headers[name] === undefined);
console.log("node", process.version, "undefined:", names.join(" "));
assert(names.includes("ce_subject") && names.includes("ce_dataschema"), "unset attributes are left out now");
assert.strictEqual(headers.ce_sequence, 7);
assert.strictEqual(value, data);

function tried(what, record) {
  try {
    Record({ key, ...record });
  } catch (error) {
    console.log(`${what}: ${error.name}: ${error.message.split("\n")[0]}`);
    return error.name;
  }
  return "encoded";
}

const text = JSON.stringify(data);
assert.strictEqual(tried("a header undefined", { value: text, headers: { ce_subject: undefined } }), "TypeError");
assert.strictEqual(tried("a header 7", { value: text, headers: { ce_sequence: 7 } }), "TypeError");
assert.strictEqual(tried("a value that is an object", { value, headers: { ce_id: "c" } }), "TypeError");
const set = Object.entries(headers).filter(([, header]) => header !== undefined);
const texts = Object.fromEntries(set.map(([name, header]) => [name, String(header)]));
assert.strictEqual(tried("all texts", { value: text, headers: texts }), "encoded");
console.log("as described");
JAVASCRIPT
