"""Object stores, opened to be written to."""

import os
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import from_url

from tfbatch.errors import OutputRefused, first_line

CLIENT_SETTINGS = (
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only", "http2_only",
    "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes", "randomize_addresses",
    "read_timeout", "root_certificate", "user_agent",
)  # fmt: skip


def open_store(address: str, seconds: int) -> Any:
    """The store of an address, whose requests may take so long.

    Raises:
        OutputRefused: it cannot be used as the environment has it.
    """
    try:
        return from_url(address, **options(address, seconds))
    except (BaseError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or brief(error)
        raise OutputRefused(f"output {address} cannot be used: {reason}") from error


def options(address: str, seconds: int) -> dict[str, Any]:
    """How a store is opened: credentials of profiles and single sign-on where boto3 is there to find them;
    everything else from the variables that the vendor's own tools read."""
    client: dict[str, Any] = {**client_settings(address), "timeout": timedelta(seconds=seconds)}
    if not address.startswith("s3://"):
        return {"client_options": client}
    chosen: dict[str, Any] = {"client_options": client}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        chosen["endpoint"] = endpoint
        client |= {"allow_http": "true"} if endpoint.startswith("http://") else {}
    if "AWS_ACCESS_KEY_ID" not in os.environ and find_spec("boto3"):
        from tfbatch.outputs.aws_credentials import Credentials

        chosen["credential_provider"] = Credentials.find()
    return chosen


def client_settings(address: str) -> dict[str, str]:
    """What variables say of connections (`AWS_PROXY_URL`): a store that is given any settings of them looks no more."""
    prefix = {"s3": "AWS", "gs": "GOOGLE"}.get(address.partition("://")[0], "AZURE")
    found = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in CLIENT_SETTINGS}
    return {name: value for name, value in found.items() if value}


def brief(error: Exception) -> str:
    """The first line of a store's message, without the answer it quotes."""
    return first_line(error).split(": <?xml")[0]
