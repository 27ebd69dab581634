// Command send sends the given messages by a client for Go: send BROKER MESSAGES WAY; it prints those that are refused.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Message is an event with the names of the JSON file.
type Message struct {
	ID, Source, Type, Time, Topic, ContentType string
	Sequence                                   int
	Key                                        *string
	Data                                       []byte
	Headers                                    map[string]string
}

// key of a record: nil where the message has none.
func (m Message) key() []byte {
	if m.Key == nil {
		return nil
	}
	return []byte(*m.Key)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func report(m Message, err error) {
	if err != nil {
		fmt.Printf("%s\t%s\n", m.ID, strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func main() {
	file, err := os.ReadFile(os.Args[2])
	check(err)
	var messages []Message
	check(json.Unmarshal(file, &messages))
	client, options, _ := strings.Cut(os.Args[3], ":")
	senders := map[string]func(string, []Message, string){
		"kafka-go": byKafkaGo, "sarama": bySarama, "franz-go": byFranz, "sdk": bySDK,
	}
	senders[client](os.Args[1], messages, options)
}
