"""Reports by HTTP, as a program without any library of ours sends them."""

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from tests.running_meter import RunningMeter

SECONDS_MAX = 60


class Answer(NamedTuple):
    """What came back; `headers` have names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The error's reason, where the body is JSON of ours."""
        return str(json.loads(self.body)["error"]["reason"])


def post(
    meter: RunningMeter,
    path: str,
    body: bytes,
    *,
    content_type: str = "application/json",
    api_key: str | None = None,
    method: str = "POST",
    context: ssl.SSLContext | None = None,
    address: str | None = None,
    **headers: str,
) -> Answer:
    """Send a request; `api_key` is the installation's unless given, "" sends none.

    `headers` have `_` for `-`. With a `context` it goes over TLS. `address` is another port's.
    """
    key = meter.api_key if api_key is None else api_key
    sent = {"Content-Type": content_type} | ({"Authorization": f"Bearer {key}"} if key else {})
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    if context is None:
        connection = http.client.HTTPConnection(address or meter.http, timeout=SECONDS_MAX)
    else:
        connection = http.client.HTTPSConnection(meter.http, timeout=SECONDS_MAX, context=context)
    try:
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, told, answer.read())
    finally:
        connection.close()
