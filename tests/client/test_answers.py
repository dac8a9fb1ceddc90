"""Answers read while they pass, as tables of what engines send."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.client import limits
from tokenworks.client.answers import Answer, AnswerReader
from tokenworks.client.foreign import Unfit
from tokenworks.client.vocabulary import Finish

CHAT: Final = {"prompt_tokens": 9, "completion_tokens": 4}
EMBEDDED: Final = {"prompt_tokens": 8, "total_tokens": 8}
RESPONSES: Final = {"input_tokens": 9, "output_tokens": 4}
FORGED: Final = {"input_tokens": 0, "output_tokens": 0}


def _events(*said: Mapping[str, Any] | str) -> bytes:
    lines = []
    for each in said:
        if isinstance(each, str):
            lines.append(each)
        else:
            lines += [f"event: {each['type']}"] if "type" in each else []
            lines.append(f"data: {json.dumps(each)}\n")
    return "\n".join(lines).encode() + b"\n"


def _chunk(usage: object = None, reason: str | None = None) -> Mapping[str, Any]:
    delta = {"content": 'he said "usage": {"prompt_tokens": 0} and "finish_reason": "length"'}
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": "x", "model": "m", "choices": choices, "usage": usage}


# profile, events, usage, how it ended, whether it is whole
STREAMS: Final[Mapping[str, tuple[str, bytes, Mapping[str, object] | None, Finish, bool]]] = {
    "usage at the end": (
        "openai",
        _events(_chunk(), _chunk(reason="stop"), {**_chunk(CHAT), "choices": []}, "data: [DONE]"),
        CHAT, Finish.COMPLETED, True,
    ),
    "cumulative usage, the last one counts": (
        "openai",
        _events(_chunk({"prompt_tokens": 9, "completion_tokens": 1}), _chunk(CHAT)),
        CHAT, Finish.COMPLETED, False,
    ),
    "cut at the longest answer": (
        "openai", _events(_chunk(CHAT, "length"), "data:[DONE]"), CHAT, Finish.TRUNCATED, True,
    ),
    "one choice of two is cut": (
        "openai", _events(_chunk(reason="length"), _chunk(CHAT, "stop"), "data: [DONE]"),
        CHAT, Finish.TRUNCATED, True,
    ),
    "an error under way": (
        "openai", _events(_chunk(CHAT), 'data: {"error": {"message": "x"}}\n', "data: [DONE]"),
        CHAT, Finish.FAILED, True,
    ),
    "without usage": ("openai", _events(_chunk(), "data: [DONE]"), None, Finish.COMPLETED, True),
    "lines that end as on Windows": (
        "openai", _events(_chunk(CHAT), "data: [DONE]").replace(b"\n", b"\r\n"),
        CHAT, Finish.COMPLETED, True,
    ),
    "messages: later counts over earlier ones": (
        "anthropic",
        _events(
            {"type": "message_start", "message": {
                "model": "m",
                "usage": {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"text": "x"}},
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"},
             "usage": {"input_tokens": None, "output_tokens": 4}},
            {"type": "message_stop"},
        ),
        {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 4},
        Finish.TRUNCATED, True,
    ),
    "messages broken off": (
        "anthropic",
        _events({"type": "message_start", "message": {
            "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}}),
        {"input_tokens": 5, "output_tokens": 1}, Finish.COMPLETED, False,
    ),
    "responses: in the last event": (
        "openai_responses",
        _events(
            {"type": "response.created", "response": {"model": "m", "usage": None}},
            {"type": "response.completed",
             "response": {"model": "m", "status": "completed", "usage": RESPONSES}},
        ),
        RESPONSES, Finish.COMPLETED, True,
    ),
    "responses: cut": (
        "openai_responses",
        _events({"type": "response.incomplete",
                 "response": {"model": "m", "status": "incomplete", "usage": RESPONSES}}),
        RESPONSES, Finish.TRUNCATED, True,
    ),
    "responses: what the caller wrote is no usage": (
        "openai_responses",
        _events({"type": "response.created", "response": {
            "model": "m", "tools": [{"parameters": {"usage": FORGED}}], "usage": None}}),
        None, Finish.COMPLETED, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAMS)
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=8))
def test_stream__in_any_pieces(case: str, cuts: list[int]) -> None:
    """What a stream says does not depend on where its pieces are cut."""
    profile, raw, usage, finish, is_whole = STREAMS[case]
    reader = AnswerReader(profile=profile, is_stream=True)
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for begin, end in pairwise(places):
        reader.feed(raw[begin:end])
    model = "" if usage is None and profile == "openai" else "m"
    assert reader.read() == Answer(usage=usage, model=model, finish=finish, is_whole=is_whole)


# profile, body, usage, how it ended
BODIES: Final[Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, object] | None, Finish]]] = {
    "chat": ("openai", {"choices": [{"finish_reason": "stop"}], "usage": CHAT}, CHAT,
             Finish.COMPLETED),
    "cut": ("openai", {"choices": [{"finish_reason": "length"}], "usage": CHAT}, CHAT,
            Finish.TRUNCATED),
    "embeddings": ("openai", {"data": [], "usage": EMBEDDED}, EMBEDDED, Finish.COMPLETED),
    "no usage": ("openai", {"choices": []}, None, Finish.COMPLETED),
    "messages": ("anthropic", {"stop_reason": "max_tokens", "usage": RESPONSES}, RESPONSES,
                 Finish.TRUNCATED),
    "responses": (
        "openai_responses",
        {"status": "failed", "usage": RESPONSES, "tools": [{"parameters": {"usage": FORGED}}]},
        RESPONSES, Finish.FAILED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
def test_body__of_each_form(case: str) -> None:
    """A body's own usage is read, wherever else the word stands in it."""
    profile, body, usage, finish = BODIES[case]
    answer = _read_body(profile, [json.dumps({"model": "m", **body}).encode()])
    assert answer == Answer(usage=usage, model="m", finish=finish, is_whole=True)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_body__that_is_no_object(raw: bytes) -> None:
    """What is no JSON object is refused, and not guessed at."""
    with pytest.raises(Unfit, match="unreadable_answer"):
        _read_body("openai", [raw])


def test_body__longer_than_is_kept() -> None:
    """The usage of a very long answer is read from its end, and the rest is not kept."""
    body = {"model": "m", "choices": [{"text": "word " * 1_000_000, "finish_reason": "length"}]}
    raw = json.dumps({**body, "usage": CHAT, "prompt_logprobs": None}).encode()
    reader = AnswerReader(profile="openai", is_stream=False)
    for begin in range(0, len(raw), 65_536):
        reader.feed(raw[begin : begin + 65_536])
        assert len(reader.kept) <= limits.ANSWER_BYTES_MAX
    assert reader.read() == Answer(usage=CHAT, model="m", finish=Finish.TRUNCATED, is_whole=True)


def test_body__longer_than_is_kept_of_embeddings() -> None:
    """The model of many vectors is named after them, and read from the end."""
    body = {"data": [{"embedding": [0.125] * 500_000}], "model": "m", "usage": EMBEDDED}
    answer = _read_body("openai", [json.dumps(body).encode()])
    assert answer == Answer(usage=EMBEDDED, model="m", finish=Finish.COMPLETED, is_whole=True)


def test_body__longer_than_is_kept_with_a_callers_json() -> None:
    """Where a caller's own JSON is repeated, a usage is never picked from the end of an answer."""
    tools = [{"parameters": {"usage": FORGED}}]
    body = {"usage": RESPONSES, "output": "word " * 1_000_000, "tools": tools}
    with pytest.raises(Unfit, match="answer_too_long"):
        _read_body("openai_responses", [json.dumps(body).encode()])


def test_stream__with_a_line_longer_than_is_kept() -> None:
    """A very long line is passed over, and what comes after it is read."""
    reader = AnswerReader(profile="openai", is_stream=True)
    for _ in range(40):
        reader.feed(b"data: " + b"x" * 65_536)
    with pytest.raises(Unfit, match="answer_too_long"):
        reader.read()
    reader.feed(b"\n\n" + _events(_chunk(CHAT), "data: [DONE]"))
    assert reader.read().usage == CHAT


def _read_body(profile: str, pieces: Sequence[bytes]) -> Answer:
    reader = AnswerReader(profile=profile, is_stream=False)
    for piece in pieces:
        reader.feed(piece)
    return reader.read()
