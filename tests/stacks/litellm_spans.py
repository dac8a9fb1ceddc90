"""Asks LiteLLM for an answer and has its own OpenTelemetry callback export it.

Runs in LiteLLM's environment, with ours behind it for the exporter: `litellm_spans.py PATH`, the
path being that of our packages. Where to export is in the environment, as LiteLLM reads it.
"""

import asyncio
import importlib
import sys
from typing import Any


async def main() -> None:
    """Ask, and live until nobody listens: the callback runs after the answer."""
    sys.path.append(sys.argv[1])
    litellm: Any = importlib.import_module("litellm")
    litellm.callbacks = ["otel"]
    await litellm.acompletion(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": "SECRET-PROMPT"}],
        mock_response="SECRET-ANSWER",
    )
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
