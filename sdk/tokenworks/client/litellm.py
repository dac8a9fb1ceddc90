"""`TokenworksLogger`: a callback of LiteLLM's proxy that reports through this client.

A file beside the proxy's configuration makes it, and the configuration names it:

    from tokenworks.client.litellm import TokenworksLogger

    logger = TokenworksLogger("meter.internal:7411", api_key="...", spool="/var/lib/tokenworks")

Unlike what the proxy sends by itself, nothing is lost while the meter is away.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenworks.client import limits
from tokenworks.client.clock import monotonic
from tokenworks.client.foreign import Unfit, guarded
from tokenworks.client.litellm_payload import HEADERS, LiteLlmCall, LiteLlmPlaces, find_call
from tokenworks.client.meter import Meter
from tokenworks.client.vocabulary import Source

if TYPE_CHECKING:
    CustomLogger = object
else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ModuleNotFoundError:
        # Who reads or tests the client has no need of LiteLLM.
        CustomLogger = object

__all__ = ["LiteLlmPlaces", "RecordCounts", "TokenworksLogger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCounts:
    """What became of the records of calls that LiteLLM handed over."""

    reported: int = 0
    """Handed to the client, whose `statistics` go on from here."""
    without_usage: int = 0
    """A failure, or another call that took no tokens."""
    unreadable: int = 0
    """A record of which no event can be made; each is lost."""


class TokenworksLogger(CustomLogger):
    """Reports each call of LiteLLM's proxy or asynchronous library; never raises into it."""

    def __init__(
        self,
        target: str = "127.0.0.1:7411",
        *,
        api_key: str | None = None,
        producer: str | None = None,
        spool: str | Path | None = None,
        ca_certificate: str | Path | None = None,
        insecure: bool = False,
        places: LiteLlmPlaces | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Prepare to report; raises ValueError where an argument is out of its range.

        `target` to `insecure` are those of `Meter`. `places`: where a record has the account and
        the rest. `meter`: one that was made with `source="litellm"`, instead of all the others
        but `places`; whoever made it closes it.
        """
        super().__init__()
        self._meter = meter or Meter(
            target,
            api_key=api_key,
            producer=producer,
            spool=spool,
            ca_certificate=ca_certificate,
            insecure=insecure,
            source=Source.LITELLM,
        )
        self._places = places or LiteLlmPlaces()
        self._counts = RecordCounts()
        self._told_time = -limits.LOG_INTERVAL_SECONDS

    @property
    def counts(self) -> RecordCounts:
        """What became of records so far."""
        return self._counts

    @property
    def meter(self) -> Meter:
        """The client, say for its `statistics`."""
        return self._meter

    # LiteLLM passes these by name, all four of them.
    async def async_log_success_event(
        self,
        kwargs: Mapping[str, Any],
        response_obj: object,  # noqa: ARG002
        start_time: datetime | None,  # noqa: ARG002
        end_time: datetime | None,  # noqa: ARG002
    ) -> None:
        """Report a call that was answered; returns at once."""
        self._report(kwargs)

    async def async_log_failure_event(
        self,
        kwargs: Mapping[str, Any],
        response_obj: object,  # noqa: ARG002
        start_time: datetime | None,  # noqa: ARG002
        end_time: datetime | None,  # noqa: ARG002
    ) -> None:
        """Report a call that failed, where something was generated; returns at once."""
        self._report(kwargs)

    def _report(self, kwargs: Mapping[str, Any]) -> None:
        try:
            call = guarded(self._find_call, kwargs)
        except Unfit as error:
            self._count("unreadable")
            self._tell(str(error))
            return
        if call is None:
            self._count("without_usage")
        elif self._meter.record(
            account=call.account or None,
            model=call.model or None,
            tier=call.tier or None,
            served_model=call.served_model or None,
            mode=call.mode,
            pool=call.pool or None,
            region=call.region or None,
            tokens=call.tokens,
            end_time=call.end_time,
            duration_ms=call.duration_ms,
            finish=call.finish,
            quality=call.quality,
            request_id=call.request_id,
            reported_input_count=_told(call.reported_input_count),
            reported_output_count=_told(call.reported_output_count),
            usage={**call.usage, "cache_hit": True} if call.is_cache_hit else call.usage,
            profile=call.profile,
        ):
            self._count("reported")

    def _find_call(self, kwargs: Mapping[str, Any]) -> LiteLlmCall | None:
        record = kwargs.get("standard_logging_object")
        return find_call(record, places=self._places, headers=HEADERS)

    def _count(self, name: str) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + 1})

    def _tell(self, reason: str) -> None:
        """Log now and then why a record could not be read; never what is in it."""
        now = monotonic()
        if now - self._told_time >= limits.LOG_INTERVAL_SECONDS:
            self._told_time = now
            _log.warning("A record of LiteLLM could not be read: %s", reason)


_log: Final = logging.getLogger(__name__)
_UNKNOWN: Final = -1


def _told(count: int) -> int | None:
    return None if count == _UNKNOWN else count
