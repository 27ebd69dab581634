package main

import (
	"context"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
)

func bySDK(broker string, messages []Message, options string) {
	partitioner, mode, _ := strings.Cut(options, "+")
	ctx := context.Background()
	if mode == "structured" {
		ctx = binding.WithForceStructured(ctx)
	}
	senders := map[string]cloudevents.Client{}
	for _, m := range messages {
		if senders[m.Topic] == nil {
			sender, err := kafka_sarama.NewSender([]string{broker}, saramaConfig(partitioner), m.Topic)
			check(err)
			defer sender.Close(ctx)
			senders[m.Topic], err = cloudevents.NewClient(sender)
			check(err)
		}
		event := cloudevents.NewEvent()
		event.SetID(m.ID)
		event.SetSource(m.Source)
		event.SetType(m.Type)
		taken, err := time.Parse(time.RFC3339Nano, m.Time)
		check(err)
		event.SetTime(taken)
		event.SetExtension("sequence", m.Sequence)
		if m.Key != nil {
			event.SetExtension("partitionkey", *m.Key)
		}
		check(event.SetData(m.ContentType, m.Data))
		if result := senders[m.Topic].Send(ctx, event); cloudevents.IsUndelivered(result) {
			report(m, result)
		}
	}
}
