"""Sending recordings to Kafka as if they happened now.

readers      which reader opens a file            session   one session out of several files
part         what a reader is asked and returns   listing   what would be sent, a line of JSON a record
slices       measurements as blocks of telemetry

media        films and sound                      tables      CSV, TSV
speech       subtitles, words of recognisers      vehicles    CAN buses, openpilot, comma2k19
robots       MCAP, bags of ROS                    biosignals  EDF, WFDB
"""

from streamer.feeds.replay.listing import lines
from streamer.feeds.replay.part import Options, Part
from streamer.feeds.replay.session import Recording, Stretch, new_session, open_all, run

__all__ = ["Options", "Part", "Recording", "Stretch", "lines", "new_session", "open_all", "run"]
