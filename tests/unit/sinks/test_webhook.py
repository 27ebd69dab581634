"""Signatures, and when a receiver is asked again."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from streamer.errors import UsageError
from streamer.sinks import events
from streamer.sinks.posting import asked_s, key, shown, signed
from tests.published import result

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("session", ["car-7", "Straße 7\n€", "a/b.c"])
def test_a_receiver_of_standard_webhooks_accepts_the_signature_and_nothing_that_was_changed(session: str) -> None:
    one = result(session, 3)
    body = events.structured(one)
    headers = signed(quote(one.id, safe="/"), body, key(SECRET), int(datetime.now(UTC).timestamp()))
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert json.loads(json.dumps(Receiver(SECRET).verify(body, headers)))["data"]["id"] == one.id
    for changed in ({"webhook-id": "other"}, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Receiver(SECRET).verify(body, headers | changed)
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(body.replace(b"proceed", b"brake"), headers)


@pytest.mark.parametrize("secret", [None, "", "whsec_", "not base64!", base64.b64encode(b"short").decode()])
def test_a_secret_that_protects_nothing_is_refused_and_not_shown(secret: str | None) -> None:
    with pytest.raises(UsageError, match="openssl rand -base64 32") as refused:
        key(secret)
    assert not secret or secret not in str(refused.value).replace("whsec_", "" if secret != "whsec_" else "-")


def test_the_prefix_of_a_secret_may_be_left_out() -> None:
    assert key(SECRET) == key(SECRET.removeprefix("whsec_")) == bytes(range(32))


def test_a_receiver_may_ask_for_a_pause_in_seconds_or_until_a_date() -> None:
    assert asked_s("7") == 7.0
    assert asked_s("999999") == 3600.0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < asked_s(later) <= 90
    assert asked_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert asked_s("soon") == asked_s(None) == 0.0


def test_only_the_host_of_an_address_is_shown() -> None:
    assert shown("https://user:word@example.org:8443/hooks/T0K3N?key=1") == "https://example.org:8443"
    for wrong in ("example.org/x", "ftp://example.org", "https://", "http://[::1", "https://h:port/"):
        with pytest.raises(UsageError, match="STREAMER_WEBHOOK_URL"):
            shown(wrong)
