"""Whether Kafka and Redis answer. Asked by hand where that is enough: importing a client of each takes 0.1 s."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

from streamer.errors import UsageError
from streamer.local.process import listens
from streamer.settings import Settings, host_and_port

PATIENCE_S = 2.0
REDIS_PORT = 6379  # where an address names none
API_VERSIONS = 18  # Kafka's number of the request that every broker answers, to anybody


def kafka_answers(settings: Settings) -> bool:
    """Whether a broker answers a request."""
    servers = settings.brokers
    if settings.kafka_security_protocol == "PLAINTEXT":
        return any(_asks_versions(server) for server in servers)
    if not any(listens(server) for server in servers):
        return False  # a client waits long for a port that is closed
    from streamer.broker import topics

    return topics.answers(settings, round(PATIENCE_S * 1000))


def _asks_versions(server: str) -> bool:
    """ApiVersions, version 0: api key, version, correlation id, no client id -> the correlation id, no error."""
    request = struct.pack(">hhih", API_VERSIONS, 0, 1, -1)
    try:
        with socket.create_connection(host_and_port(server), PATIENCE_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.makefile("rb").read(10)
        return struct.unpack(">ih", answer[4:]) == (1, 0)
    except (OSError, ValueError, OverflowError, struct.error):
        return False


def redis_answers(settings: Settings) -> bool:
    """Whether Redis answers a request; one that still reads its data, or wants another password, does not."""
    url = urlsplit(settings.redis)
    if url.scheme == "redis" and "@" not in url.netloc and not url.query and settings.redis_password is None:
        return pings(settings.redis)
    from redis import RedisError

    from streamer.clients import redis as redis_clients

    try:
        with redis_clients.client(settings, socket_connect_timeout=PATIENCE_S, socket_timeout=PATIENCE_S) as client:
            return bool(client.ping())
    except (RedisError, OSError, UsageError):
        return False


def pings(url: str) -> bool:
    """Whether the Redis of a URL without user, password and TLS answers PING."""
    try:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "localhost", parts.port or REDIS_PORT), PATIENCE_S) as server:
            server.sendall(b"PING\r\n")
            return server.makefile("rb").readline() == b"+PONG\r\n"
    except (OSError, ValueError):
        return False
