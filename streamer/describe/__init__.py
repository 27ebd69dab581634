"""What each window shows, in a sentence or two of plain English.

    Redis ─ results ──────────────► reader.py ─► sentences.py ─► Redis ─ descriptions ─► the page, search
    Kafka ─ words of the windows ─► evidence.py ────┘

evidence   a window -> the words that were said in it
sentences  a result and its words -> the description; a function of the results in their order
reader     follows the results of all sessions, with a cursor in Redis: nothing in the pipeline waits for it
process    the process of `streamer describe`: its signals, its port, its connections
"""
