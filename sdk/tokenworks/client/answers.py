"""What an answer says of its tokens, read while it passes: a JSON body, or server-sent events.

Which convention an answer follows is known from the path that was asked, never from what is in it.
Of a body only its usage, its model and how it ended are looked at; nothing of its text is kept any
longer than it takes to see that.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

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

EMBEDDINGS: Final = "/v1/embeddings"
"""The path whose answers generate nothing."""

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


class AnswerReader:
    """Keeps the end of an answer while it is sent, and reads it when it has ended.

    Counts in a stream are cumulative, so that its end says all; nothing is parsed before. Between
    ends, a piece costs less than a microsecond.
    """

    __slots__ = ("_head", "_is_line_lost", "_profile", "cut_at", "is_stream", "kept")

    def __init__(self, *, profile: str, is_stream: bool) -> None:
        """`is_stream`: server-sent events, each event's data in one line; else one JSON object."""
        self._profile = profile
        self.is_stream = is_stream
        self.kept = bytearray()
        """What is kept of the answer; `cut` is due where it is longer than `cut_at` bytes."""
        self._head = b""
        """How the answer began, once its begin is no longer kept."""
        self._is_line_lost = False
        """Whether a line of a stream was too long to be kept."""
        self.cut_at = 2 * limits.ANSWER_END_BYTES if is_stream else limits.ANSWER_BYTES_MAX

    def feed(self, piece: bytes) -> None:
        """Take the next piece; raises TypeError or BufferError where it is not of bytes."""
        self.kept += piece
        if len(self.kept) > self.cut_at:
            self.cut()

    def read(self) -> Answer:
        """Return what is known by now; raises Unfit where the answer cannot be read."""
        return self._read_events() if self.is_stream else self._read_body()

    def cut(self) -> None:
        """Forget what is neither the begin nor the end; a line of the end is kept whole."""
        kept = self.kept
        self._head = self._head or bytes(kept[: limits.ANSWER_BEGIN_BYTES])
        end = len(kept) - limits.ANSWER_END_BYTES
        begin = kept.rfind(b"\n", 0, end) + 1 if self.is_stream else end
        if len(kept) - begin > limits.ANSWER_BYTES_MAX:
            begin, self._is_line_lost = end, True
        del kept[:begin]
        if self.is_stream:
            self.cut_at = 2 * max(limits.ANSWER_END_BYTES, len(kept))

    def _read_body(self) -> Answer:
        if self._head:
            return self._read_end_of_body()
        said = _object(self.kept)
        usage, model, finish = _READERS[self._profile](said, said)
        return Answer(usage=usage, model=model, finish=finish, is_whole=True)

    def _read_end_of_body(self) -> Answer:
        """Read a body that is not kept whole.

        Only where nothing that the caller wrote as JSON is repeated in it: else a caller could
        write its own usage.
        """
        found = list(_USAGE.finditer(self.kept)) if self._profile == "openai" else []
        if not found:
            raise Unfit(UNREADABLE[1])
        text = self.kept[found[-1].end() - 1 :].decode("utf-8", "replace")
        try:
            usage, _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise Unfit(UNREADABLE[0]) from error
        # After an embedding's vectors the model comes, too.
        model = _MODEL.search(self._head) or _MODEL.search(self.kept)
        return Answer(
            usage=usage,
            model="" if model is None else model[1].decode("utf-8", "replace"),
            finish=_finish_of(_FINISH.findall(self.kept)),
            is_whole=True,
        )

    def _read_events(self) -> Answer:
        kept = bytes(self.kept)
        end = kept[-limits.ANSWER_BEGIN_BYTES :]
        marks = _MARK.findall(end)
        has_failed = any(b"error" in mark for mark in marks)
        last, first = _last_with_usage(kept), None
        if self._profile == "anthropic":
            # What its first event says of the prompt, the last one need not say again.
            first = _first_with_usage(self._head or kept)
        usage, model, finish = None, "", Finish.COMPLETED
        if first is not None or last is not None:
            usage, model, finish = _READERS[self._profile](first or last, last or first)
        elif self._is_line_lost:
            raise Unfit(UNREADABLE[1])
        if finish is Finish.COMPLETED:
            finish = _finish_of(_FINISH.findall(end))
        return Answer(
            usage=usage,
            model=model,
            finish=Finish.FAILED if has_failed else finish,
            # A response has its usage in its last event alone.
            is_whole=bool(marks) or (usage is not None and self._profile == "openai_responses"),
        )


_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
"""A key, never a text: within a text its quotation marks would be escaped."""
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
# What says that no more will come; never a text, in which the begin of a line would be escaped.
_MARK: Final = re.compile(rb'\n(?:data: ?\[DONE\]|data: ?\{"error"|event: ?(?:error|message_stop))')


def with_no_output(usage: Mapping[str, object]) -> Mapping[str, object]:
    """Return the usage of an embedding with the total that OpenAI's has not: nothing generated."""
    if usage.get("completion_tokens") is not None:
        return usage
    return {**usage, "completion_tokens": 0}


def _first_with_usage(lines: bytes) -> Mapping[str, Any] | None:
    """Return the first event with a usage object."""
    found = (_event(line) for line in lines.splitlines() if b'"usage"' in line)
    return next((said for said in found if said is not None), None)


def _last_with_usage(lines: bytes) -> Mapping[str, Any] | None:
    """Return the last event with a usage object; one that was cut short is passed over."""
    place = lines.rfind(b'"usage"')
    while place >= 0:
        begin = lines.rfind(b"\n", 0, place) + 1
        end = lines.find(b"\n", place)
        said = _event(lines[begin : end if end >= 0 else len(lines)])
        if said is not None:
            return said
        place = lines.rfind(b'"usage"', 0, begin)
    return None


def _event(line: bytes) -> Mapping[str, Any] | None:
    """Return an event's data; None where it has no usage object, or cannot be read."""
    if not line.startswith(b"data:") or not _USAGE.search(line):
        return None
    try:
        return _object(line[5:])
    except Unfit:
        return None


_Read: TypeAlias = tuple[Mapping[str, object] | None, str, Finish]
"""Usage, model, and how the answer ended."""


def _read_openai(_first: Mapping[str, Any], last: Mapping[str, Any]) -> _Read:
    choices = last.get("choices")
    reasons = [
        str(choice.get("finish_reason")).encode()
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, Mapping)
    ]
    return _mapping(last.get("usage")), _text(last.get("model")), _finish_of(reasons)


def _read_responses(_first: Mapping[str, Any], last: Mapping[str, Any]) -> _Read:
    # An event has the response within; a body is it.
    response = _mapping(last.get("response")) or last
    finish = {"incomplete": Finish.TRUNCATED, "failed": Finish.FAILED}.get(
        _text(response.get("status")), Finish.COMPLETED
    )
    return _mapping(response.get("usage")), _text(response.get("model")), finish


def _read_anthropic(first: Mapping[str, Any], last: Mapping[str, Any]) -> _Read:
    message = _mapping(first.get("message")) or first
    begun, ended = _mapping(message.get("usage")) or {}, _mapping(last.get("usage")) or {}
    # What an event leaves out stays as the begin of the message had it.
    usage = {**begun, **{name: value for name, value in ended.items() if value is not None}}
    delta = _mapping(last.get("delta")) or last
    is_cut = delta.get("stop_reason") == "max_tokens"
    finish = Finish.TRUNCATED if is_cut else Finish.COMPLETED
    return usage or None, _text(message.get("model")), finish


_READERS: Final[Mapping[str, Callable[[Any, Any], _Read]]] = {
    "openai": _read_openai,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
}
"""Each takes the first and the last object with usage; a body is both."""


def _finish_of(reasons: Sequence[bytes]) -> Finish:
    """Return how an answer ended; one with several choices is cut when one of them is."""
    return Finish.TRUNCATED if b"length" in reasons else Finish.COMPLETED


def _object(raw: bytes | bytearray) -> Mapping[str, Any]:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unfit(UNREADABLE[0]) from error
    if not isinstance(said, dict):
        raise Unfit(UNREADABLE[0])
    return said


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
