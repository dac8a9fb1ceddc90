"""A decoder-only transformer with random weights, which really generates tokens.

What it says means nothing. What it costs is what a model of this shape costs: every weight is read,
every key and value is kept, every token is sampled and fed back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch  # type: ignore[import-not-found]  # comes with the GPU, not with the project
import torch.nn.functional as F  # type: ignore[import-not-found]  # noqa: N812 - its name

# Query, key and value, each by row, head, place and width.
Attention: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

_ROWS_MAX: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a model of Llama's kind."""

    layers: int
    width: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner) + (
            2 * self.width * self.vocabulary
        )


# The shape of Llama 3.1 8B, for which others have published joules per token.
EIGHT_BILLION: Final = Shape(
    layers=32,
    width=4096,
    heads=32,
    key_heads=8,
    head_width=128,
    inner=14336,
    vocabulary=128256,
)
TINY: Final = Shape(
    layers=2, width=64, heads=4, key_heads=2, head_width=16, inner=128, vocabulary=512
)


class Decoder:
    """Weights, and room for the keys and values of what is being generated."""

    def __init__(self, shape: Shape, *, device: str, cache_bytes: int, length_max: int) -> None:
        self.shape = shape
        self._device = device
        self._dtype = torch.bfloat16 if device == "cuda" else torch.float32
        generator = torch.Generator(device=device)
        generator.manual_seed(20261125)
        self._generator = generator
        width, inner, heads = shape.width, shape.inner, shape.heads + 2 * shape.key_heads
        self._embedding = self._random(shape.vocabulary, width)
        self._head = self._random(shape.vocabulary, width)
        self._layers = [
            (
                self._random(heads * shape.head_width, width),
                self._random(width, shape.heads * shape.head_width),
                self._random(2 * inner, width),
                self._random(width, inner),
            )
            for _ in range(shape.layers)
        ]
        self._norm = torch.ones(width, device=device, dtype=self._dtype)
        item_bytes = self._norm.element_size()
        self._pool = self._random(shape.layers, cache_bytes // item_bytes // shape.layers, std=1.0)
        self._cos, self._sin = self._angles(length_max)
        self.attention, self._attend = _fastest(device, shape=shape, dtype=self._dtype)

    def room(self, batch: int, *, length: int) -> torch.Tensor:
        """Return keys and values for a batch of sequences: layer, row, place, key or value, …."""
        shape = self.shape
        one = batch * length * 2 * shape.key_heads * shape.head_width
        if one > self._pool.shape[1]:
            raise ValueError(f"no room for {batch} sequences of {length} tokens")
        return self._pool[:, :one].view(
            shape.layers, batch, length, 2, shape.key_heads, shape.head_width
        )

    def prompt(self, batch: int, *, length: int) -> torch.Tensor:
        """Return random tokens."""
        return torch.randint(
            self.shape.vocabulary,
            (batch, length),
            device=self._device,
            generator=self._generator,
        )

    def prefill(self, tokens: torch.Tensor, *, room: torch.Tensor, start: int) -> torch.Tensor:
        """Compute prompts that stand behind `start` cached tokens; return each's first token."""
        step = max(1, _ROWS_MAX // tokens.shape[1])
        with torch.inference_mode():
            parts = [
                self._forward(tokens[low : low + step], room=room[:, low : low + step], start=start)
                for low in range(0, tokens.shape[0], step)
            ]
            return torch.cat(parts)

    def decode(self, tokens: torch.Tensor, *, room: torch.Tensor, start: int) -> torch.Tensor:
        """Return the token after each of `tokens`, which stand at the place `start`."""
        with torch.inference_mode():
            return self._forward(tokens, room=room, start=start)

    def wait(self) -> None:
        """Return when the GPU has done all that it was given."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _forward(self, tokens: torch.Tensor, *, room: torch.Tensor, start: int) -> torch.Tensor:
        shape = self.shape
        rows, count = tokens.shape
        end = start + count
        cos, sin = self._cos[start:end, None], self._sin[start:end, None]
        turned = shape.heads + shape.key_heads
        x = F.embedding(tokens, self._embedding)
        for place, (inward, outward, gates, down) in enumerate(self._layers):
            mixed = F.linear(self._normed(x), inward).view(rows, count, -1, shape.head_width)
            rope = _turn(mixed[:, :, :turned], cos=cos, sin=sin)
            held = room[place]
            held[:, start:end, 0] = rope[:, :, shape.heads :]
            held[:, start:end, 1] = mixed[:, :, turned:]
            seen = self._attend(
                rope[:, :, : shape.heads].transpose(1, 2),
                held[:, :end, 0].transpose(1, 2),
                held[:, :end, 1].transpose(1, 2),
            )
            x = x + F.linear(seen.transpose(1, 2).reshape(rows, count, -1), outward)
            gate, up = F.linear(self._normed(x), gates).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, down)
        logits = F.linear(self._normed(x[:, -1]), self._head)
        return logits.argmax(dim=-1, keepdim=True)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.shape.width,), self._norm, 1e-5)

    def _random(self, *size: int, std: float = 0.02) -> torch.Tensor:
        made = torch.empty(size, device=self._device, dtype=self._dtype)
        return made.normal_(0, std, generator=self._generator)

    def _angles(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.shape.head_width // 2
        steps = 500_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * steps
        cos = torch.cat((angles.cos(), angles.cos()), dim=-1)
        sin = torch.cat((-angles.sin(), angles.sin()), dim=-1)
        return cos.to(self._device, self._dtype), sin.to(self._device, self._dtype)


def _turn(x: torch.Tensor, *, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    halves = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return torch.addcmul(x * cos, halves, sin)


def _fastest(device: str, *, shape: Shape, dtype: torch.dtype) -> tuple[str, Attention]:
    """Return the fast attention's name and itself, if its answers are those of the plain one."""
    if device != "cuda":
        return "plain", _plain
    made = torch.Generator(device=device).manual_seed(1)
    held = torch.empty(
        (2, 160, 2, shape.key_heads, shape.head_width), device=device, dtype=dtype
    ).normal_(generator=made)
    key, value = held[:, :, 0].transpose(1, 2), held[:, :, 1].transpose(1, 2)
    for count in (1, 32, 160):
        size = (2, shape.heads, count, shape.head_width)
        query = torch.empty(size, device=device, dtype=dtype).normal_(generator=made)
        right = _plain(query.float(), key.float(), value.float())
        try:
            fast = _flash(query, key, value)
        except RuntimeError as error:
            return f"plain, as flash says: {error}"[:300], _plain
        if not (fast.float() - right).norm() < 0.02 * right.norm():
            return f"plain, as flash is wrong with {count} queries", _plain
    return "flash", _flash


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend with the causal mask at the lower right, as flash attention has it."""
    causal = query.shape[2] > 1
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal)[0]  # noqa: SLF001 - the operator takes fewer keys' heads than queries'


def _plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    asked, known = query.shape[2], key.shape[2]
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    shown = torch.ones(asked, known, dtype=torch.bool, device=query.device).tril(known - asked)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=shown)
