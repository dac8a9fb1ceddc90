"""A small Llama with weights drawn at random, in the one file that llama.cpp loads."""

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from tests.stacks.tiny_model import SPECIAL, TEMPLATE, vocabulary

_WIDTH, _INNER, _LAYERS, _HEADS = 64, 128, 2, 2
_UINT32, _FLOAT32, _STRING, _ARRAY, _INT32 = 4, 6, 8, 9, 5
_ALIGNMENT: Final = 32
_NORMAL, _CONTROL = 1, 3
_Value: TypeAlias = str | float | Sequence[str | int]


def write_gguf(path: Path, *, context_tokens: int = 2048) -> None:
    """Write the model; the same each time."""
    tokens = list(vocabulary())
    words: dict[str, _Value] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": context_tokens,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": _LAYERS,
        "llama.feed_forward_length": _INNER,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": _WIDTH // _HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if t in SPECIAL else _NORMAL for t in tokens],
        # One that joins nothing: a tokenizer without any is refused.
        "tokenizer.ggml.merges": [f"{SPECIAL[0]} {SPECIAL[1]}"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": TEMPLATE,
    }
    shapes = _shapes(len(tokens))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(words))
    head += b"".join(_text(name) + _value(value) for name, value in words.items())
    offset = 0
    for name, shape in shapes.items():
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}QIQ", *shape, 0, offset)
        offset += _padded(4 * _count(shape))
    draw = random.Random(7)
    with path.open("wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        for name, shape in shapes.items():
            is_norm = name.endswith("norm.weight")
            drawn = (1.0 if is_norm else draw.gauss(0, 0.1) for _ in range(_count(shape)))
            raw = array("f", drawn).tobytes()
            file.write(raw.ljust(_padded(len(raw)), b"\0"))


def _shapes(vocabulary_size: int) -> Mapping[str, tuple[int, ...]]:
    """Return each tensor's dimensions, the fastest first."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (_WIDTH, vocabulary_size),
        "output_norm.weight": (_WIDTH,),
        "output.weight": (_WIDTH, vocabulary_size),
    }
    for layer in range(_LAYERS):
        names = ("attn_q", "attn_k", "attn_v", "attn_output")
        block = {f"{name}.weight": (_WIDTH, _WIDTH) for name in names} | {
            "attn_norm.weight": (_WIDTH,),
            "ffn_norm.weight": (_WIDTH,),
            "ffn_gate.weight": (_WIDTH, _INNER),
            "ffn_up.weight": (_WIDTH, _INNER),
            "ffn_down.weight": (_INNER, _WIDTH),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: _Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    kind, items = _INT32, b""
    for each in value:
        if isinstance(each, str):
            kind, items = _STRING, items + _text(each)
        else:
            items += struct.pack("<i", each)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if shape[1:] else 1)


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
