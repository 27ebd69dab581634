"""Alarms by rules: expressions over the results of a session, with a memory that survives every restart.

    Redis ─ results ─► engine ─► alarms (Redis) ─► actions: webhook · Kafka · clip · speech
                          ▲
                     rules.toml

table    rules.toml -> rules, each checked
engine   results in their order -> alarms: pure
alarm    what an alarm is
alarms   Redis: what is open, what is to be done, the log of who acknowledged what
actions  what an alarm sets off, at least once
trial    which alarms a recording or a file of results would raise
metrics  every metric
process  the process of `streamer rules`
"""
