"""``python -m streamer`` is the command ``streamer``."""

from streamer.cli import main

main()
