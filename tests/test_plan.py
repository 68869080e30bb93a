"""Plans as values: a plan kept as a golden file, rules of the layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import BLOCK_BYTES, Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from tests.bench.generate import SHAPES, generate
from tests.checkpoints import (
    mistral_checkpoint,
    mistral_config,
    mistral_tensors,
    write_checkpoint,
)

GOLDEN = Path(__file__).parent / "golden/plan.json"
"""Plan of the test's small checkpoint; delete it and run the test twice to make it anew."""


@pytest.fixture(scope="module")
def mistral_7b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral-7B's true headers over holes."""
    folder = tmp_path_factory.mktemp("mistral") / "mistral-7b"
    generate(folder, SHAPES["mistral-7b"], sparse=True)
    return folder


def test_a_real_layout_can_share_all_but_a_few_blocks(mistral_7b: Path) -> None:
    plan = plan_upscale(open_checkpoint(mistral_7b), UpscaleRequest(drop=8))
    total = sum(shard.size for shard in plan.shards)
    shareable = sum(
        span.end // BLOCK_BYTES * BLOCK_BYTES - -(-span.begin // BLOCK_BYTES) * BLOCK_BYTES
        for shard in plan.shards
        for span in shard.spans
        if (span.begin - span.target) % BLOCK_BYTES == 0
    )
    assert shareable > 0.999 * total


def test_plan_is_the_golden_one(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "model", layers=4, shards=2)
    plan = plan_upscale(open_checkpoint(source), UpscaleRequest(drop=1, base_model="org/base"))
    value = {**plan.to_json(with_headers=True), "dus_version": "any"}
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        pytest.fail("the golden file was missing and has been written; look at it")
    assert value == json.loads(GOLDEN.read_bytes())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layers=st.integers(1, 7),
    shards=st.integers(1, 5),
    data=st.data(),
    limit=st.one_of(st.none(), st.integers(1500, 20_000)),
)
def test_spans_fill_every_output_byte_once(
    tmp_path_factory: pytest.TempPathFactory,
    layers: int,
    shards: int,
    data: st.DataObject,
    limit: int | None,
) -> None:
    source = mistral_checkpoint(tmp_path_factory.mktemp("m") / "m", layers=layers, shards=shards)
    drop = data.draw(st.integers(0, layers - 1))
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=drop, max_shard_size=limit))
    check_spans(plan)
    largest = limit or max(shard.size for shard in checkpoint.shards)
    assert all(shard.size <= largest or len(shard.tensor_names) == 1 for shard in plan.shards)
    if limit is None:
        assert all(len({span.source for span in shard.spans}) == 1 for shard in plan.shards)
    names = [name for shard in plan.shards for name in shard.tensor_names]
    assert len(names) == len(set(names)) == 3 + 4 * 2 * (layers - drop)


def check_spans(plan: Plan) -> None:
    """Header and spans follow each other without gap or overlap, to the end of the file."""
    for shard in plan.shards:
        position = len(shard.header)
        for span in shard.spans:
            assert span.target == position
            position += span.end - span.begin
        assert position == shard.size
        assert int.from_bytes(shard.header[:8], "little") + 8 == len(shard.header)


def test_many_small_tensors_are_laid_out_in_good_time(tmp_path: Path) -> None:
    # Each draft of a file costs as much as it has tensors; one draft a tensor would take minutes.
    tensors = mistral_tensors(2)
    tensors |= {f"model.layers.{i % 2}.t{i}": np.zeros(1, np.int8) for i in range(3000)}
    source = write_checkpoint(tmp_path / "model", tensors, mistral_config(2))
    request = UpscaleRequest(drop=1, max_shard_size=20_000)
    plan = plan_upscale(open_checkpoint(source), request)
    check_spans(plan)
    assert all(shard.size <= 20_000 for shard in plan.shards)
    # No file could have taken the first tensor of the next one as well.
    assert all(shard.size > 15_000 for shard in plan.shards[:-2])
