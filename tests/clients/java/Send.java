import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.message.Encoding;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventSerializer;
import java.io.File;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.support.JsonKafkaHeaderMapper;
import org.springframework.kafka.support.KafkaHeaders;
import org.springframework.kafka.support.converter.MessagingMessageConverter;
import org.springframework.kafka.support.serializer.JacksonJsonSerializer;
import org.springframework.messaging.support.MessageBuilder;

/** Sends the given messages by a client for Java: {@code Send BROKER MESSAGES WAY}; prints those that it refuses. */
public class Send {
    interface Sender extends AutoCloseable {
        void send(JsonNode message) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", arguments[0]));
        try (Sender sender = sender(arguments[2], config)) {
            for (JsonNode message : new ObjectMapper().readTree(new File(arguments[1]))) {
                try {
                    sender.send(message);
                } catch (Exception refused) {
                    Throwable cause = refused.getCause() == null ? refused : refused.getCause();
                    System.out.println(message.get("id").asText() + "\t" + cause.toString().replace('\n', ' '));
                }
            }
        }
    }

    static Sender sender(String way, Map<String, Object> config) {
        if (way.startsWith("spring")) {
            return spring(way, config);
        }
        return way.startsWith("sdk") ? sdk(way, config) : plain(config);
    }

    static Sender plain(Map<String, Object> config) {
        var producer = new KafkaProducer<>(config, new StringSerializer(), new ByteArraySerializer());
        return closing(producer::close, message -> {
            var record = new ProducerRecord<>(text(message, "topic"), text(message, "key"), data(message));
            message.get("headers").properties().forEach(header ->
                record.headers().add(header.getKey(), header.getValue().asText().getBytes(StandardCharsets.UTF_8)));
            producer.send(record).get();
        });
    }

    static Sender sdk(String way, Map<String, Object> config) {
        var serializer = new CloudEventSerializer();
        serializer.configure(way.endsWith("structured")
            ? Map.of(CloudEventSerializer.ENCODING_CONFIG, Encoding.STRUCTURED,
                CloudEventSerializer.EVENT_FORMAT_CONFIG, JsonFormat.CONTENT_TYPE)
            : Map.of(), false);
        Serializer<Object> values = new Serializer<>() {
            @Override
            public byte[] serialize(String topic, Object event) {
                throw new IllegalStateException("headers are needed");
            }

            @Override
            public byte[] serialize(String topic, org.apache.kafka.common.header.Headers headers, Object event) {
                return serializer.serialize(topic, headers, (CloudEvent) event);
            }
        };
        var producer = new KafkaProducer<String, Object>(config, new StringSerializer(), values);
        return closing(producer::close, message -> {
            var builder = CloudEventBuilder.v1()
                .withId(text(message, "id"))
                .withSource(URI.create(text(message, "source")))
                .withType(text(message, "type"))
                .withTime(OffsetDateTime.parse(text(message, "time")))
                .withExtension("sequence", message.get("sequence").asInt());
            byte[] data = data(message);
            var event = (data.length == 0
                ? builder.withDataContentType(text(message, "contentType"))
                : builder.withData(text(message, "contentType"), data)).build();
            producer.send(new ProducerRecord<>(text(message, "topic"), text(message, "key"), event)).get();
        });
    }

    static Sender spring(String way, Map<String, Object> config) {
        Serializer<?> values = way.endsWith("json") ? new JacksonJsonSerializer<>() : new ByteArraySerializer();
        @SuppressWarnings("unchecked")
        var factory = new DefaultKafkaProducerFactory<String, Object>(
            config, new StringSerializer(), (Serializer<Object>) values);
        var template = new KafkaTemplate<String, Object>(factory);
        if (way.endsWith("quoted")) {
            var mapper = new JsonKafkaHeaderMapper();
            mapper.setEncodeStrings(true);
            var converter = new MessagingMessageConverter();
            converter.setHeaderMapper(mapper);
            template.setMessageConverter(converter);
        }
        return closing(factory::destroy, message -> {
            var builder = MessageBuilder.withPayload((Object) data(message))
                .setHeader(KafkaHeaders.TOPIC, text(message, "topic"))
                .setHeader(KafkaHeaders.KEY, text(message, "key"));
            message.get("headers").properties().forEach(header ->
                builder.setHeader(header.getKey(), header.getValue().asText()));
            if (way.endsWith("types")) {
                builder.setHeader("ce_time", OffsetDateTime.parse(text(message, "time")));
                builder.setHeader("ce_sequence", message.get("sequence").asInt());
            }
            template.send(builder.build()).get();
        });
    }

    interface Sending {
        void send(JsonNode message) throws Exception;
    }

    static Sender closing(Runnable close, Sending sending) {
        return new Sender() {
            @Override
            public void send(JsonNode message) throws Exception {
                sending.send(message);
            }

            @Override
            public void close() {
                close.run();
            }
        };
    }

    static String text(JsonNode message, String name) {
        return message.get(name).isNull() ? null : message.get(name).asText();
    }

    static byte[] data(JsonNode message) throws java.io.IOException {
        return message.get("data").binaryValue();
    }
}
