"""Clients of Redis, and what a command says if one cannot be made or used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio

from streamer.clients import tls
from streamer.errors import UsageError, one_line
from streamer.settings import Settings

TIMEOUT_S = 5.0


def client(settings: Settings, **options: Any) -> redis.Redis:
    """A client of Redis; it connects at its first command.

    Args:
        options: For ``redis.Redis``.

    Raises:
        UsageError: The URL is malformed, or the authority's file cannot be read.
    """
    made: redis.Redis = _made(redis.Redis.from_url, settings, options)
    return made


def async_client(settings: Settings, **options: Any) -> redis.asyncio.Redis:
    """Like :func:`client`, for asyncio."""
    made: redis.asyncio.Redis = _made(redis.asyncio.Redis.from_url, settings, options)
    return made


def _made(from_url: Callable[..., Any], settings: Settings, options: dict[str, Any]) -> Any:
    identity: dict[str, Any] = {}
    if settings.redis_password is not None:
        identity |= {"username": settings.redis_user, "password": settings.redis_password.get_secret_value()}
    if settings.redis_ca_file is not None:
        tls.context("STREAMER_REDIS_CA_FILE", settings.redis_ca_file)  # redis-py's error does not name the file
        identity["ssl_ca_certs"] = str(settings.redis_ca_file)
    try:
        return from_url(settings.redis, **{"socket_connect_timeout": TIMEOUT_S, **identity, **options})
    except (ValueError, TypeError):  # their text may contain part of a password
        raise UsageError(
            f"setting STREAMER_REDIS: {settings.redis_shown} is no URL such as redis://HOST:6379/0; "
            "what is not a letter or digit in a password must be percent-encoded"
        ) from None


def refusal(settings: Settings, error: Exception) -> UsageError:
    """The error for a request that Redis did not answer, or refused."""
    where = f"Redis at {settings.redis_shown}"
    if isinstance(error, redis.AuthenticationError):
        return UsageError(f"{where} refuses us: {one_line(error)}; check STREAMER_REDIS, its user and password")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return UsageError(f"{where} refuses us: {one_line(error)}; SECURITY.md lists the rights that are needed")
    if isinstance(error, redis.ResponseError):  # such as a key of another type, or still loading
        return UsageError(f"{where}: {one_line(error)}")
    text = one_line(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return UsageError(
            f"the certificate of {where} cannot be trusted ({text}); set STREAMER_REDIS_CA_FILE to the authority "
            "that signed it, and STREAMER_REDIS to a name in it"
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer" in text.lower():
        return UsageError(f"{where} does not speak TLS ({text}); set STREAMER_REDIS to a URL that begins with redis://")
    url = urlsplit(settings.redis)
    if url.scheme == "redis" and tls.speaks_tls(url.hostname or "localhost", url.port or 6379):
        return UsageError(f"{where} speaks TLS; set STREAMER_REDIS to a URL that begins with rediss://")
    return UsageError(
        f"cannot reach {where} ({text}); set STREAMER_REDIS to where one answers, or unset it and run `streamer up`"
    )
