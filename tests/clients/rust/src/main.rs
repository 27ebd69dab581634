//! Sends the given messages by rdkafka: `send BROKER MESSAGES WAY`; prints those that are refused.

use base64::{engine::general_purpose::STANDARD, Engine};
use cloudevents::binding::rdkafka::{FutureRecordExt, MessageRecord};
use cloudevents::message::StructuredDeserializer;
use cloudevents::{Event, EventBuilder, EventBuilderV10};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use std::time::Duration;

fn event(message: &Value, data: Vec<u8>) -> Event {
    let text = |name: &str| message[name].as_str().unwrap().to_string();
    let mut builder = EventBuilderV10::new()
        .id(text("id"))
        .source(text("source"))
        .ty(text("type"))
        .time(text("time"))
        .extension("sequence", message["sequence"].as_i64().unwrap());
    if !data.is_empty() {
        builder = builder.data(text("contentType"), data);
    }
    builder.build().unwrap()
}

fn headers(message: &Value) -> OwnedHeaders {
    let given = message["headers"].as_object().unwrap();
    given.iter().fold(OwnedHeaders::new(), |made, (name, value)| {
        made.insert(Header { key: name, value: value.as_str() })
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let way = &arguments[3];
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &arguments[1]);
    if way.contains("murmur2") {
        config.set("partitioner", "murmur2_random");
    }
    let producer: FutureProducer = config.create().unwrap();
    let file = std::fs::read_to_string(&arguments[2]).unwrap();
    for message in serde_json::from_str::<Vec<Value>>(&file).unwrap() {
        let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
        let mut record: FutureRecord<str, Vec<u8>> = FutureRecord::to(message["topic"].as_str().unwrap());
        if let Some(key) = message["key"].as_str() {
            record = record.key(key);
        }
        let made = if way.ends_with("structured") {
            StructuredDeserializer::deserialize_structured(event(&message, data.clone()), MessageRecord::new()).unwrap()
        } else {
            MessageRecord::from_event(event(&message, data.clone())).unwrap()
        };
        record = if way.starts_with("sdk") {
            record.message_record(&made)
        } else {
            record.payload(&data).headers(headers(&message))
        };
        if let Err((error, _)) = producer.send(record, Duration::from_secs(30)).await {
            println!("{}\t{}", message["id"].as_str().unwrap(), error);
        }
    }
}
