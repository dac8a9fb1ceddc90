"""`python -m benchmarks.gpu.serve FOLDER`: the model serves tiers and reports to a meter.

It needs torch, nvidia-ml-py and the client; where the meter is and its key are in TOKENWORKS_SERVER
and TOKENWORKS_API_KEY.
"""

import argparse
import csv
import os
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Final

from benchmarks.gpu.board import Board
from benchmarks.gpu.decoder import EIGHT_BILLION, TINY, Decoder
from benchmarks.gpu.windows import Mix, run_window
from tokenworks.client import Meter

MODEL: Final = "llama-8b-random"
_GIB: Final = 1024**3
# Account, tier, and what is asked: each takes the card alone for a while, so that what each took is
# known from the counter, whatever is attributed to it.
TRAFFIC: Final = (
    ("chat", "free", Mix(kind="free", batch=64, prompt=128, output=256)),
    ("search", "medium", Mix(kind="medium", batch=16, prompt=1024, output=64)),
    ("agents", "high", Mix(kind="high", batch=32, prompt=128, cached=2048, output=128)),
    ("research", "premium", Mix(kind="premium", batch=4, prompt=512, output=256)),
)
# The card rests for a while in each round.
_REST: Final = Mix(kind="rest")


def main() -> int:
    """Serve round after round until a time, each tier for some seconds, and write what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.serve")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pool", default="h100")
    parser.add_argument("--until", type=float, required=True, help="unix seconds")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each tier in a round")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    board = Board()
    model = Decoder(
        EIGHT_BILLION if gpu else TINY,
        device=options.device,
        cache_bytes=16 * _GIB if gpu else _GIB // 8,
        length_max=4096,
    )
    turns = cycle((*TRAFFIC, ("", "", _REST)))
    with (
        Meter(
            os.environ["TOKENWORKS_SERVER"],
            api_key=os.environ["TOKENWORKS_API_KEY"],
            producer="h100-0",
            model=MODEL,
            pool=options.pool,
        ) as meter,
        options.out.open("w", encoding="utf-8", newline="") as file,
    ):
        table = None
        while time.time() < options.until:
            account, tier, mix = next(turns)

            def tell(mix: Mix, output: int, account: str = account, tier: str = tier) -> None:
                for _ in range(mix.batch):
                    meter.record(
                        account=account,
                        tier=tier,
                        input=mix.prompt,
                        cache_read=mix.cached,
                        output=output,
                    )

            row = run_window(
                mix, board=board, model=model, seconds=options.seconds, tell=tell
            ).row()
            table = table or csv.DictWriter(file, list(row), lineterminator="\n")
            if file.tell() == 0:
                table.writeheader()
            table.writerow(row)
            file.flush()
        meter.flush(60)
        print(meter.statistics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
