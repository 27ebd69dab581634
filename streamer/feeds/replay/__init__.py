"""Sending recordings to Kafka as if they happened now.

readers   which reader opens a file          session   one session out of several files
part      what a reader is asked and returns listing   what would be sent, a line of JSON a record

media     films and sound, through PyAV      speech    subtitles and word timings
gpmf      GoPro's telemetry, a payload       table     tables of telemetry, mcap   MCAP
gpmftrack their times in the film                      by header and cells
"""

from streamer.feeds.replay.listing import lines
from streamer.feeds.replay.part import Options, Part
from streamer.feeds.replay.session import Recording, Stretch, new_session, open_all, run

__all__ = ["Options", "Part", "Recording", "Stretch", "lines", "new_session", "open_all", "run"]
