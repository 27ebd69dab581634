"""Streaming multimodal event processor.

The way of a record is the reading order of the packages:

broker    record <- Kafka      everything that speaks to Kafka
align     record -> window     decode, merge, align: per session, by event time
worker    window -> batch      the process that joins the stages, by role
model     batch -> prediction  what a model sees of a window, and how it is run
store     prediction -> Redis  once in effect
"""
