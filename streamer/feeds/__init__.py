"""Where records come from: devices (``Producer``), live cameras, simulated drives, recordings."""

from streamer.feeds.producer import Outgoing, Producer

__all__ = ["Outgoing", "Producer"]
