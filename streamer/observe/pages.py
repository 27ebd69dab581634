"""What the pages for people have in common, the live page and the gateway's: their colours."""

from __future__ import annotations

from importlib.resources import files


def page_file(package: str, name: str) -> bytes:
    """A file of a page; a style sheet begins with the colours of all pages."""
    body = (files(package) / name).read_bytes()
    return (files("streamer.observe") / "colours.css").read_bytes() + body if name.endswith(".css") else body
