"""A model that was never trained, in the files that engines load: nothing has to be downloaded.

Its weights are drawn by the engine; each byte is a token, so that a prompt's length is known.
"""

import json
from pathlib import Path
from typing import Any, Final

SPECIAL: Final = ("<s>", "</s>", "<unk>")
TEMPLATE: Final = (
    "{% for each in messages %}{{ each.role }}: {{ each.content }}\n{% endfor %}assistant:"
)
_WIDTH: Final = 64


def write_model(folder: Path, *, context_tokens: int = 2048) -> None:
    """Write the configuration and the tokenizer of a small Llama, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": _WIDTH // 2,
        "hidden_act": "silu",
        "max_position_embeddings": context_tokens,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": len(words),
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "unk_token": SPECIAL[2],
        "model_max_length": context_tokens,
        "chat_template": TEMPLATE,
    }
    for name, content in {
        "config.json": config,
        "tokenizer.json": _tokenizer(words),
        "tokenizer_config.json": tokenizer_config,
    }.items():
        (folder / name).write_text(json.dumps(content), "utf-8")


def vocabulary() -> dict[str, int]:
    """Return what the model knows, by its number."""
    return {text: i for i, text in enumerate([*SPECIAL, *_bytes()])}


def _tokenizer(words: dict[str, int]) -> dict[str, Any]:
    by_byte = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i,
                "content": text,
                "special": True,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
            for i, text in enumerate(SPECIAL)
        ],
        "pre_tokenizer": {**by_byte, "use_regex": False},
        "decoder": {**by_byte, "use_regex": False},
        "model": {"type": "BPE", "vocab": words, "merges": [], "unk_token": "<unk>"},
    }


def _bytes() -> list[str]:
    """Return what stands for each byte in a vocabulary of bytes: itself, if it can be seen."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in seen]
    return [chr(value) for value in seen] + [chr(256 + i) for i in range(len(hidden))]
