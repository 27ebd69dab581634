"""Streaming multimodal event processor.

decode    record -> event       bytes and headers of a Kafka record become an event, or a dead letter
merge     events -> one order   the topics of a partition group, in log-time order
align     events -> windows     per session, by event time
batch     windows -> batches    by size or deadline, across sessions
infer     batch -> predictions  cut and decode payloads, one fused model on the device
publish   predictions -> Redis  once in effect

With roles, closed windows go from one worker to another on the way to batch: handover, outbox, arrivals.
"""
