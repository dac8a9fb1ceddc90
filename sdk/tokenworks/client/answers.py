"""What an answer says of its tokens, read while it passes: a JSON body, or server-sent events.

Which convention an answer follows is known from the path that was asked, never from what is in it.
Of a body only its usage, its model and how it ended are looked at; nothing of its text is kept any
longer than it takes to see that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tokenworks.client import limits
from tokenworks.client.foreign import Unfit
from tokenworks.client.vocabulary import Finish

PROFILES_BY_PATH: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/embeddings": "openai",
    "/v1/responses": "openai_responses",
    "/v1/messages": "anthropic",
}
"""Who made the usage object of an answer, by the path that was asked."""

UNREADABLE: Final = ("unreadable_answer", "answer_too_long")
"""What an answer that cannot be read raises, as `Unfit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known of an answer when it ends, or is broken off."""

    usage: Mapping[str, object] | None
    """The usage object that counts; None where there was none."""
    model: str
    """The model that answered, empty where it is not said."""
    finish: Finish
    """COMPLETED, TRUNCATED or FAILED, as far as the answer says."""
    is_whole: bool
    """Whether it says itself that it is at its end."""


class AnswerReader(Protocol):
    """Takes an answer piece by piece, as it is sent."""

    def feed(self, piece: bytes) -> None:
        """Look at the next piece; takes microseconds, and keeps a bounded part of it."""

    def read(self) -> Answer:
        """Return what is known by now; raises Unfit where the answer cannot be read."""


class BodyReader:
    """Reads an answer that is one JSON object, once all of it has passed.

    One that is longer than `ANSWER_BYTES_MAX` is read from its end, and only where nothing that the
    caller wrote as JSON is repeated in it: else a caller could write its own usage.
    """

    def __init__(self, *, profile: str) -> None:
        self._profile = profile
        self._kept = bytearray()
        self._head = b""

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        self._kept += piece
        if len(self._kept) > limits.ANSWER_BYTES_MAX:
            self._head = self._head or bytes(self._kept[: limits.ANSWER_END_BYTES])
            del self._kept[: -limits.ANSWER_END_BYTES]

    def read(self) -> Answer:
        """Return what the body says; raises Unfit where it is no such object, or too long."""
        if self._head:
            return self._read_end()
        said = _object(self._kept)
        usage, model, finish = _READERS[self._profile]((said, said))
        return Answer(usage=usage, model=model, finish=finish, is_whole=True)

    def _read_end(self) -> Answer:
        found = list(_USAGE.finditer(self._kept)) if self._profile == "openai" else []
        if not found:
            raise Unfit(UNREADABLE[1])
        text = self._kept[found[-1].end() - 1 :].decode("utf-8", "replace")
        try:
            usage, _ = json.JSONDecoder().raw_decode(text)
        except ValueError as error:
            raise Unfit(UNREADABLE[0]) from error
        model = _MODEL.search(self._head)
        return Answer(
            usage=usage,
            model="" if model is None else model[1].decode("utf-8", "replace"),
            finish=_finish_of(_FINISH.findall(self._head) + _FINISH.findall(self._kept)),
            is_whole=True,
        )


class EventReader:
    """Reads an answer that comes as server-sent events; each event's data is one line.

    Counts are cumulative: of events with a usage object the last one counts, so nothing is parsed
    before the answer ends. A line longer than `ANSWER_BYTES_MAX` is passed over.
    """

    def __init__(self, *, profile: str) -> None:
        self._profile = profile
        self._begun = bytearray()
        """What has come of a line that is not at its end."""
        self._is_passing_over = False
        self._has_passed_over = False
        self._first = self._last = b""
        """The first and the last event with a usage object."""
        self._reasons: set[bytes] = set()
        self._is_whole = False
        self._has_failed = False

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        end = piece.rfind(b"\n") + 1
        if not end:
            self._keep(piece)
            return
        lines = piece[:end]
        if self._begun or self._is_passing_over:
            lines = self._completed(lines)
        self._look(lines)
        if end < len(piece):
            self._keep(piece[end:])

    def read(self) -> Answer:
        """Return what the events said so far; raises Unfit where the last one cannot be read."""
        finish = _finish_of(self._reasons)
        if not self._last:
            if self._has_passed_over:
                raise Unfit(UNREADABLE[1])
            failed = Finish.FAILED if self._has_failed else finish
            return Answer(usage=None, model="", finish=failed, is_whole=self._is_whole)
        first, last = _object(self._first), _object(self._last)
        usage, model, said = _READERS[self._profile]((first, last))
        finish = said if said is not Finish.COMPLETED else finish
        return Answer(
            usage=usage,
            model=model,
            finish=Finish.FAILED if self._has_failed else finish,
            is_whole=self._is_whole,
        )

    def _look(self, lines: bytes) -> None:
        if b'"usage"' in lines:
            for line in lines.splitlines():
                if line.startswith(b"data:") and _USAGE.search(line):
                    self._last = line[5:]
                    self._first = self._first or self._last
        if b'"finish_reason"' in lines:
            self._reasons.update(_FINISH.findall(lines))
        for mark in _MARK.findall(lines):
            self._is_whole = True
            self._has_failed = self._has_failed or b"error" in mark or b"failed" in mark

    def _completed(self, lines: bytes) -> bytes:
        """Put what had come of a line before what comes now; without it where it was too long."""
        if self._is_passing_over:
            self._is_passing_over = False
            return lines[lines.index(b"\n") + 1 :]
        lines = bytes(self._begun) + lines
        self._begun.clear()
        return lines

    def _keep(self, piece: bytes) -> None:
        if self._is_passing_over:
            return
        self._begun += piece
        if len(self._begun) > limits.ANSWER_BYTES_MAX:
            self._begun.clear()
            self._is_passing_over = self._has_passed_over = True


_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
"""A key, never a text: within a text its quotation marks would be escaped."""
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
# What says that no more will come.
_MARK: Final = re.compile(
    rb'^(?:data: ?\[DONE\]|data: ?\{"error"'
    rb"|event: ?(?:error|message_stop|response\.(?:completed|incomplete|failed)))",
    re.MULTILINE,
)


def _read_openai(said: Sequence[Mapping[str, Any]]) -> tuple[Any, str, Finish]:
    last = said[-1]
    choices = last.get("choices")
    reasons = [
        str(choice.get("finish_reason")).encode()
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, Mapping)
    ]
    return _mapping(last.get("usage")), _text(last.get("model")), _finish_of(reasons)


def _read_responses(said: Sequence[Mapping[str, Any]]) -> tuple[Any, str, Finish]:
    # An event has the response within; a body is it.
    response = _mapping(said[-1].get("response")) or said[-1]
    finish = {"incomplete": Finish.TRUNCATED, "failed": Finish.FAILED}.get(
        _text(response.get("status")), Finish.COMPLETED
    )
    return _mapping(response.get("usage")), _text(response.get("model")), finish


def _read_anthropic(said: Sequence[Mapping[str, Any]]) -> tuple[Any, str, Finish]:
    first, last = said
    message = _mapping(first.get("message")) or first
    begun, ended = _mapping(message.get("usage")) or {}, _mapping(last.get("usage")) or {}
    # What an event leaves out stays as the begin of the message had it.
    usage = {**begun, **{name: value for name, value in ended.items() if value is not None}}
    delta = _mapping(last.get("delta")) or last
    is_cut = delta.get("stop_reason") == "max_tokens"
    finish = Finish.TRUNCATED if is_cut else Finish.COMPLETED
    return usage or None, _text(message.get("model")), finish


_READERS: Final = {
    "openai": _read_openai,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
}
"""Each takes the first and the last object with usage; returns usage, model and how it ended."""


def _finish_of(reasons: Sequence[bytes] | set[bytes]) -> Finish:
    """Return how an answer ended; one with several choices is cut when one of them is."""
    return Finish.TRUNCATED if b"length" in reasons else Finish.COMPLETED


def _object(raw: bytes | bytearray) -> Mapping[str, Any]:
    try:
        said = json.loads(raw)
    except ValueError as error:
        raise Unfit(UNREADABLE[0]) from error
    if not isinstance(said, dict):
        raise Unfit(UNREADABLE[0])
    return said


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
