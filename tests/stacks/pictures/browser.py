"""Chromium, which turns a page into a picture and tells what does not fit on it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or ""
COMMAND_SECONDS_MAX = 120
# Tells of texts that stick out of their panel or their place, and of numbers upon each other.
_MEASURE = """<script>
addEventListener("load", () => {
  const found = [];
  for (const panel of document.querySelectorAll(".panel")) {
    const title = panel.querySelector("h2").textContent;
    const frame = panel.getBoundingClientRect();
    const texts = [...panel.querySelectorAll("text, .number span, td, th, .key")];
    for (const it of texts) {
      const box = it.getBoundingClientRect();
      if (!box.width) continue;
      const isOut = box.left < frame.left || box.right > frame.right + 0.5
        || box.bottom > frame.bottom + 0.5;
      if (isOut) found.push(`${title}: out: ${it.textContent}`);
      if (it.scrollWidth > it.clientWidth + 1 && it.clientWidth)
        found.push(`${title}: cut: ${it.textContent}`);
    }
    const drawn = [...panel.querySelectorAll("text")].map((it) => [it, it.getBoundingClientRect()]);
    drawn.forEach(([one, a], place) => {
      for (const [other, b] of drawn.slice(place + 1)) {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 6)
          found.push(`${title}: upon each other: ${one.textContent}, ${other.textContent}`);
      }
    });
    if (panel.textContent.includes("No data")) found.push(`${title}: no data`);
  }
  document.title = JSON.stringify(found);
});
</script>"""


def photograph(page: str, *, path: Path, folder: Path, width: int, height: int) -> None:
    """Write a picture of a page."""
    _browse(page, f"--screenshot={path}", folder=folder, width=width, height=height)


def find_faults(page: str, *, folder: Path, width: int, height: int) -> list[str]:
    """Tell what does not fit on a page."""
    measured = page.replace("</body>", _MEASURE + "</body>")
    dumped = _browse(measured, "--dump-dom", folder=folder, width=width, height=height)
    title = re.search("<title>(.*?)</title>", dumped, re.DOTALL)
    assert title is not None
    # What the title says is escaped as text of HTML is.
    text = title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    faults: list[str] = json.loads(text)
    return faults


def _browse(page: str, *words: str, folder: Path, width: int, height: int) -> str:
    (folder / "page.html").write_text(page, "utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            # It may run as root, where its own sandbox does not work; the page is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}",
            *words,
            (folder / "page.html").as_uri(),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
