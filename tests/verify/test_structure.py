"""What the structural checks say of near misses, and of what must not alarm."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from dus_cli.findings import Collector
from dus_cli.verify.structure import verify_structure
from tests.checkpoints import write_checkpoint
from tests.verify.faults import (
    FIRST,
    Fault,
    config,
    edit_json,
    on_json,
    write_faulty,
    write_pair,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder)
    return folder


def codes(folder: Path) -> set[str]:
    collector = Collector()
    verify_structure(folder, collector)
    return set(collector.counts)


def _grow(folder: Path) -> None:
    with (folder / "tokenizer_config.json").open("a", encoding="utf-8") as file:
        file.write(" ")


def _of_shard(**fields: object) -> Callable[[Path], None]:
    def change(plan: dict[str, list[dict[str, object]]]) -> None:
        next(shard for shard in plan["shards"] if shard["name"] == FIRST).update(fields)

    return on_json("dus.json", change)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(_grow, {"record-file"}, id="a file grew by a blank"),
        pytest.param(_of_shard(tensors=99), {"record-shard"}, id="tensors recorded wrongly"),
        pytest.param(_of_shard(header_bytes=8), {"record-shard"}, id="header recorded wrongly"),
        pytest.param(_of_shard(size=8), {"record-shard"}, id="size recorded wrongly"),
        pytest.param(
            on_json("dus.json", lambda plan: plan["shards"].pop()),
            {"record-shard"},
            id="a shard not recorded",
        ),
        pytest.param(
            on_json("dus.json", lambda plan: plan.pop("shards")), {"record-json"}, id="no shards"
        ),
        pytest.param(
            on_json("dus.json", lambda plan: plan.update(schema="dus-plan/2")),
            {"record-json"},
            id="a schema of the future",
        ),
        pytest.param(
            config(auto_map={"AutoModel": "org/name--modeling.Model"}),
            set(),
            id="code of another repository",
        ),
        pytest.param(
            config(auto_map={"AutoTokenizer": ["own.Tokenizer", None]}),
            {"code-missing"},
            id="code in a list",
        ),
        pytest.param(config(layer_types=["a"] * 7), {"config-layer-list"}, id="a list too long"),
        pytest.param(
            config(layer_types=["a"] * 7, num_nextn_predict_layers=1), set(), id="an entry for MTP"
        ),
        pytest.param(config(mlp_only_layers=[6]), {"config-layer-number"}, id="the first beyond"),
        pytest.param(config(mlp_only_layers=[5]), set(), id="the last layer"),
        pytest.param(config(torch_dtype="torch.float16"), set(), id="a dtype by its long name"),
        pytest.param(config(tie_word_embeddings=None), set(), id="a tie that is not stated"),
    ],
)
def test_what_is_found(
    sound: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    expected: set[str],
) -> None:
    fault = Fault(name="", code="", change=change)
    assert codes(write_faulty(sound, tmp_path / "case", fault)) == expected


def test_links_into_the_blobs_of_a_hub_cache_stay_inside(sound: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in (sound / "model").iterdir():
        (blobs / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    assert codes(snapshot) == set()
    (snapshot / "vocab.txt").symlink_to(os.path.relpath(tmp_path, snapshot) + "/elsewhere")
    (tmp_path / "elsewhere").write_text("", encoding="utf-8")
    assert codes(snapshot) == {"file-link"}


def _write(
    folder: Path, model_type: str, layers: Iterable[Iterable[str]], **fields: object
) -> Path:
    parameters = [list(names) for names in layers]
    tensors = {
        f"model.layers.{number}.{name}": np.full((4, 4), number, np.float16)
        for number, names in enumerate(parameters)
        for name in names
    }
    stated = {"model_type": model_type, "num_hidden_layers": len(parameters), **fields}
    return write_checkpoint(folder, tensors, stated)


USUAL = ("attn_norm.weight", "attn.Wqkv.weight", "mlp.Wi.weight")


@pytest.mark.parametrize(
    ("model_type", "layers", "expected"),
    [
        # Layers 0, 3 and 6 are peers.
        ("modernbert", [USUAL[1:], *[USUAL] * 6], set()),
        ("modernbert", [*[USUAL] * 3, USUAL[1:], *[USUAL] * 3], {"layer-incomplete"}),
        ("llama", [USUAL[1:], USUAL, USUAL], {"layer-incomplete"}),
        ("llama", [(*USUAL, "x.weight"), USUAL, USUAL], set()),
        ("llama", [USUAL, (*USUAL, "x.weight"), USUAL], {"layer-extra"}),
        ("own", [USUAL[1:], USUAL, USUAL, USUAL], set()),
        ("own", [USUAL, USUAL[1:], USUAL, USUAL], {"layer-unlike"}),
        ("own", [USUAL, USUAL[1:], USUAL, USUAL[1:]], set()),
    ],
)
def test_layers_are_held_to_their_peers(
    tmp_path: Path, model_type: str, layers: list[tuple[str, ...]], expected: set[str]
) -> None:
    assert codes(_write(tmp_path / "model", model_type, layers)) == expected


def test_a_config_alone_says_who_are_peers(tmp_path: Path) -> None:
    dense, sparse = ("mlp.up.weight",), ("mlp.experts.0.up.weight",)
    folder = _write(tmp_path / "model", "deepseek_v3", [dense, sparse, sparse])
    assert codes(folder) == {"layer-incomplete"}
    edit_json(folder / "config.json", lambda value: value.update(first_k_dense_replace=1))
    assert codes(folder) == set()


def test_a_partial_checkpoint_is_not_blamed_for_what_is_not_read(
    sound: Path, tmp_path: Path
) -> None:
    fault = Fault(name="", code="", change=lambda folder: (folder / FIRST).write_bytes(b"x"))
    assert codes(write_faulty(sound, tmp_path / "case", fault)) == {"header-broken"}
    record = json.loads((tmp_path / "case" / "model" / "dus.json").read_bytes())
    assert any(shard["name"] == FIRST for shard in record["shards"])


@pytest.mark.parametrize(("inner", "expected"), [(64, set()), (48, {"config-shape"})])
def test_gpt2_states_its_inner_size_by_default(
    tmp_path: Path, inner: int, expected: set[str]
) -> None:
    tensors = {f"h.{layer}.mlp.c_fc.weight": np.ones((16, inner), np.float16) for layer in (0, 1)}
    folder = write_checkpoint(
        tmp_path / "model", tensors, {"model_type": "gpt2", "n_layer": 2, "n_embd": 16}
    )
    assert codes(folder) == expected
