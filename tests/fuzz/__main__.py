"""Coverage-guided fuzzing of what reads files: `python -m tests.fuzz SECONDS FOLDER [TARGET …]`.

Each target runs for so many seconds in a process of its own. FOLDER keeps what was found between
runs: `TARGET/` the inputs that reach new code, `TARGET-crash-…` those that made the target fail.
Needs atheris (the extra `fuzz`).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dus_cli"]):
    # What is imported before, or later, is not watched; the command imports this one when asked.
    from dus_cli.format.dtypes import BITS_PER_ELEMENT
    from dus_cli.model.config_rules import FIELDS
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

MAX_BYTES = 20_000
SECONDS_A_RUN = 20
MEGABYTES = 1024
"""What one input may take; the process as a whole, whose corpus lies in memory, included."""

WORDS = (
    *BITS_PER_ELEMENT,
    *FIELDS,
    *"dtype shape data_offsets __metadata__ format weight_map metadata total_size".split(),
    *"num_hidden_layers model_type text_config quantization_config ignore layer_types".split(),
    *"architectures auto_map tie_word_embeddings vocab_size schema shards field after".split(),
    *"mistral qwen2_moe gemma3 deepseek_v3 llama4 jamba gpt_neo nemotron_h t5".split(),
)


def main() -> int:
    """Fuzzes in this process where libFuzzer's options say so, else in one for each target."""
    if sys.argv[1] == "--run":
        return fuzz(sys.argv[2], sys.argv[3:])
    seconds, folder, *names = sys.argv[1:]
    failed = [name for name in names or TARGETS if not run(name, int(seconds), Path(folder))]
    print(f"failed: {', '.join(failed)}" if failed else "no target failed")
    return 1 if failed else 0


def run(name: str, seconds: int, folder: Path) -> bool:
    """Fuzzes one target, prints its figures, and says whether nothing was found."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / f"{name}.dict"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in WORDS), encoding="ascii")
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={SECONDS_A_RUN}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-dict={words}",
        f"-artifact_prefix={folder / name}-",
        "-print_final_stats=1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--run", name, *options, str(corpus)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    covered = re.findall(r"cov: (\d+)", done.stderr)
    print(
        f"{name}: {figures.get('number_of_executed_units', '?')} inputs in {seconds} s, "
        f"{covered[-1] if covered else '?'} edges, {sum(1 for _ in corpus.iterdir())} kept, "
        f"{figures.get('peak_rss_mb', '?')} MB",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def fuzz(name: str, options: list[str]) -> int:
    """Hands one target to libFuzzer, which ends the process."""
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
