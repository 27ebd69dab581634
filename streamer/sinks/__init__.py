"""Results on their way out: to a Kafka topic, a webhook, Parquet files.

    Redis ─ results, by a cursor of its own ─► sink ─► Kafka · webhook · Parquet

Each sink is a process and a reader of the results streams: never in a worker's way, and a slow one delays only itself.

sink       what a sink is: the base class for those here and for yours
registry   which sinks there are, by entry points
events     a result as a CloudEvent
kafka      a topic, each result once: a transaction holds results and cursors
webhook    signed posts (posting), at least once, in the order of each session
parquet    files by day and model, each result once
letters    what a webhook's receiver has refused: listed, posted again
metrics    every metric
process    the process of `streamer sink`
"""
