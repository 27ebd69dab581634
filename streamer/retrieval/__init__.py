"""Windows found again by words, a picture or a sound, and what was in them.

    Redis ─ results with embeddings ─► mirror.py ─► store.py (a folder) or vectorsets.py (Redis 8)
                                                          │
    words, picture, sound ─► query.py ─ vector ─► search.py ─► hits ─► thumbnails.py ─► files
    Kafka ─ payloads of a window, by offset ─► contents.py ──────────────┘    └─► the live page

mirror      keeps an index equal to the results streams
store       an index in a folder: SQLite, with a graph of USearch beside it
vectorsets  an index in Redis, where it has vector sets
query       words, a picture or a sound -> a vector in the model's common space
search      a query -> windows: the whole search, for the command and the page
contents    a window -> of each sensor its newest frame, sound, transcripts or telemetry
thumbnails  windows -> their newest frames as files
"""
