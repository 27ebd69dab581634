"""A stretch of the topics: recorded, sent again, run again, compared."""
