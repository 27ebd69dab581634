"""Pretrained networks: ``senses``."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.cli.options import AsJson, console, emit, load_settings, say


def senses(
    fetch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Download this one with pip and check its hashes; can be repeated."),
    ] = None,
    json: AsJson = False,
) -> None:
    """List pretrained networks: what is there, and how to get it.

    A network that is missing comes with pip install 'streamer-multimodal[senses]', or by --fetch NAME into the folder
    of STREAMER_SENSES_DIR. --fetch says first who makes it and under which licence. Nothing is downloaded without it.
    STREAMER_SENSES__ROLE chooses what takes a role, also a file or folder of yours: docs/senses.md.
    """
    import msgspec

    from streamer.senses import fetch as fetching
    from streamer.senses import listing
    from streamer.terminal import senses as views

    settings = load_settings()
    if fetch:
        for row in [fetching.named(name) for name in fetch]:
            say(views.about(row))
            say(f"fetched {row.name} into {fetching.fetch(row, settings.senses_dir)}")
        return
    found = listing.listing(settings)
    if json:
        for line in found:
            emit(msgspec.json.encode(line))
        return
    out = console(stderr=False)
    out.print(views.table(found))
    for note in views.notes(found):
        typer.echo(note)
