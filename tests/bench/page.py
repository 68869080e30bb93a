"""Parts of the documentation that a measurement writes, between `<!-- PART -->` markers."""

import os
import platform
import re
from pathlib import Path


def machine() -> str:
    """The machine in a sentence, as far as it can be asked."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8"))
        cpu = found[1] if found else cpu
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB of memory, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def write_part(page: Path, part: str, text: str) -> None:
    """Puts `text` between the markers of `part`; raises SystemExit if the page has none."""
    content = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    before, _, rest = content.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{page.name} has no markers for {part}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
