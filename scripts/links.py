"""Find dead links in the documentation: relative ones, and anchors, in every Markdown file."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


def pages() -> list[Path]:
    """List what belongs to the project: what git tracks, or would if asked to."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as the usual hosts of Markdown do."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found, times = set(ANCHOR.findall(text)), Counter[str]()
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{times[slug]}" if times[slug] else slug)
        times[slug] += 1
    return found


def dead(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead nowhere."""
    text = SPAN.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    for inline, reference in LINK.findall(text):
        link = inline or reference
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        wanted = anchor if target.suffix == ".md" else ""
        if not target.exists() or not target.is_relative_to(ROOT):
            yield link
        elif wanted and wanted not in anchors(target):
            yield f"{link} (no such heading)"


if __name__ == "__main__":
    lost = [f"{page.relative_to(ROOT)}: {link}" for page in pages() for link in dead(page)]
    print("\n".join(lost) or "no dead links")
    sys.exit(bool(lost))
