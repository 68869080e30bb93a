import pytest
from hypothesis import given
from hypothesis import strategies as st

from dus_cli.model.layer_map import LayerMap


def depths() -> st.SearchStrategy[tuple[int, int]]:
    """Pairs (n, m) with 0 <= m < n."""
    return st.integers(1, 90).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))


@pytest.mark.parametrize(
    ("n", "m", "sources"),
    [
        (4, 1, (0, 1, 2, 1, 2, 3)),
        (5, 2, (0, 1, 2, 2, 3, 4)),
        (4, 2, (0, 1, 2, 3)),
        (4, 3, (0, 3)),
        (3, 0, (0, 1, 2, 0, 1, 2)),
        (1, 0, (0, 0)),
    ],
)
def test_depth_upscale_drops_m_layers_on_each_side_of_the_seam(
    n: int, m: int, sources: tuple[int, ...]
) -> None:
    assert LayerMap.depth_upscale(n, m).sources == sources


@pytest.mark.parametrize(
    ("model", "n", "m", "first", "second"),
    [
        ("SOLAR-10.7B-v1.0", 32, 8, range(24), range(8, 32)),
        ("Mistral-12.25B-Instruct-v0.2", 32, 4, range(28), range(4, 32)),
        ("Granite-34B-Code", 52, 8, range(44), range(8, 52)),
        ("Bielik-11B-v2", 32, 7, range(25), range(7, 32)),
    ],
)
def test_depth_upscale_is_the_recipe_of_published_models(
    model: str, n: int, m: int, first: range, second: range
) -> None:
    assert LayerMap.depth_upscale(n, m).sources == (*first, *second), model


@given(depths())
def test_depth_upscale_has_the_count_and_the_ends_of_the_paper(depth: tuple[int, int]) -> None:
    n, m = depth
    layer_map = LayerMap.depth_upscale(n, m)
    assert layer_map.layer_count == 2 * (n - m)
    assert (layer_map.sources[0], layer_map.sources[-1]) == (0, n - 1)


@given(depths())
def test_segments_cover_the_output_and_are_consecutive_in_the_source(
    depth: tuple[int, int],
) -> None:
    layer_map = LayerMap.depth_upscale(*depth)
    segments = layer_map.segments()
    assert [output for part in segments for output in part] == list(range(layer_map.layer_count))
    for part in segments:
        first = layer_map.sources[part.start]
        assert layer_map.gather(range(depth[0]))[part.start : part.stop] == list(
            range(first, first + len(part))
        )


@pytest.mark.parametrize(
    ("sources", "segments"),
    [
        ((0, 1, 2, 1, 2, 3), (range(3), range(3, 6))),
        # m = n/2 leaves the layers as they were: no seam.
        ((0, 1, 2, 3), (range(4),)),
        ((0, 3), (range(1), range(1, 2))),
        ((0, 0), (range(1), range(1, 2))),
    ],
)
def test_segments_end_where_the_source_jumps(
    sources: tuple[int, ...], segments: tuple[range, ...]
) -> None:
    assert LayerMap(sources=sources).segments() == segments


@given(depths())
def test_outputs_of_is_the_inverse_of_sources(depth: tuple[int, int]) -> None:
    layer_map = LayerMap.depth_upscale(*depth)
    pairs = {(output, source) for output, source in enumerate(layer_map.sources)}
    assert pairs == {
        (output, source) for source in range(depth[0]) for output in layer_map.outputs_of(source)
    }


def test_gather_takes_one_entry_for_each_output_layer() -> None:
    assert LayerMap.depth_upscale(4, 1).gather("abcd") == list("abcbcd")
