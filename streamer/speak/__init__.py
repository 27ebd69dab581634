"""Decisions said aloud: on a topic of their own, in files, by the live page.

    Redis ─ results, by a cursor of its own ─► sentences ─► senses/synthesis ─► records ─► Kafka: speech
                                                                                    └────► WAV files

A reader of results: never in a worker's way. What it remembers of a session is a function of the session's results in
their order, and lies in Redis beside the cursor: a successor says the same sentences under the same ids.
"""
