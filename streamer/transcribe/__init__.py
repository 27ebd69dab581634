"""Speech on the audio topic becomes transcripts: a worker between topics."""
