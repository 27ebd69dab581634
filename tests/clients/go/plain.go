package main

import (
	"context"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

func byKafkaGo(broker string, messages []Message, balancer string) {
	writer := &kafka.Writer{Addr: kafka.TCP(broker), BatchSize: 1}
	switch balancer {
	case "hash":
		writer.Balancer = &kafka.Hash{}
	case "murmur2":
		writer.Balancer, writer.RequiredAcks = kafka.Murmur2Balancer{}, kafka.RequireAll
	}
	for _, m := range messages {
		record := kafka.Message{Topic: m.Topic, Key: m.key(), Value: m.Data}
		for name, text := range m.Headers {
			record.Headers = append(record.Headers, kafka.Header{Key: name, Value: []byte(text)})
		}
		report(m, writer.WriteMessages(context.Background(), record))
	}
	check(writer.Close())
}

func saramaConfig(partitioner string) *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	if partitioner == "murmur2" {
		config.Producer.Partitioner = sarama.NewMurmur2Partitioner
	}
	return config
}

func bySarama(broker string, messages []Message, partitioner string) {
	producer, err := sarama.NewSyncProducer([]string{broker}, saramaConfig(partitioner))
	check(err)
	for _, m := range messages {
		record := &sarama.ProducerMessage{Topic: m.Topic, Value: sarama.ByteEncoder(m.Data)}
		if m.Key != nil {
			record.Key = sarama.StringEncoder(*m.Key)
		}
		for name, text := range m.Headers {
			record.Headers = append(record.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(text)})
		}
		_, _, err := producer.SendMessage(record)
		report(m, err)
	}
	check(producer.Close())
}

func byFranz(broker string, messages []Message, _ string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	check(err)
	defer client.Close()
	for _, m := range messages {
		record := &kgo.Record{Topic: m.Topic, Key: m.key(), Value: m.Data}
		for name, text := range m.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
		}
		report(m, client.ProduceSync(context.Background(), record).FirstErr())
	}
}
