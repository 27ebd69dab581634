"""What each window shows, in a sentence or two of plain English.

    Redis ─ results ───────────► describer.py ─► sentences.py, or bymodel.py ─► Redis ─ descriptions ─► page, search
    Kafka ─ words, frames, numbers ─► evidence.py ─┘                 └─► prompts.py ─► chat.py ─► a language model

evidence   a window -> the words, frames and telemetry in it
sentences  a result and its words -> the description; a function of the results in their order
describer  takes the results of all sessions in their order; nothing in the pipeline waits for it
bymodel    when a language model is asked, with which frames, and what is told instead
prompts    what it is asked, and the shape of its answer
chat       how: attempts, time-outs, tokens a minute (budget), the check of the answer
question   `streamer ask`: a question to a stretch of time
process    the process of `streamer describe`: its signals, its port, its connections
"""
