"""Replicas on one PostgreSQL and one Redis, and a gateway in front of them."""

import base64
import os
from contextlib import ExitStack, contextmanager

from backends import Postgres, Redis
from server import Server

PREFIXES = {"http1": "/one", "http2": "/two"}  # by the protocol in which replicas are asked
CHECKS_MS = 250
SHUTDOWN_DELAY_MS = 1_000  # a check that fails is enough, and takes as long as its interval and timeout


def shared(database, redis):
    """What replicas have in common, as settings."""
    return {
        "AUSPEX__STORAGE__URL": database.url,
        "AUSPEX__REDIS__URL": redis.url,
        "AUSPEX__DIALOGUES__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        "AUSPEX__SERVER__PUBLIC_URL": "http://localhost:8080",
        "AUSPEX__SERVER__SHUTDOWN_DELAY_MS": str(SHUTDOWN_DELAY_MS),
        "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
    }


def gateway(servers):
    """A server that passes on what is below PREFIXES, and leaves it to the others who may call."""
    endpoints = ", ".join(f'"{server.url}"' for server in servers)
    services = [
        f"""
[[gateway.routes]]
path = "{prefix}/{{*rest}}"
service = "{protocol}"
public = true
forward_credentials = true
strip_prefix = "{prefix}"
[gateway.services.{protocol}]
endpoints = [{endpoints}]
protocol = "{protocol}"
health = {{ path = "/health/ready", interval_ms = {CHECKS_MS}, timeout_ms = {CHECKS_MS}, unhealthy_after = 1, healthy_after = 1 }}
"""
        for protocol, prefix in PREFIXES.items()
    ]
    return Server("".join(services), AUSPEX__SERVER__ADDRESS_LIMIT__MAX="1000000000")


@contextmanager
def replicas(count, **settings):
    """`with replicas(3) as (front, servers):` a gateway and the servers behind it."""
    with ExitStack() as stack:
        settings = shared(stack.enter_context(Postgres()), stack.enter_context(Redis())) | settings
        servers = [stack.enter_context(Server(**settings))]
        servers += [stack.enter_context(Server(key=servers[0].key, **settings)) for _ in range(1, count)]
        yield stack.enter_context(gateway(servers)), servers
