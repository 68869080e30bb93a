from collections.abc import Mapping
from typing import Any

import pytest

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.model.architecture import CountedStack, choose_stacks
from dus_cli.model.stack import LayerStack, find_stacks

TWO = ("attn.weight", "mlp.weight")


def stacks(
    layers: Mapping[str, int], *, parameters: tuple[str, ...] = TWO, without: str = ""
) -> tuple[LayerStack, ...]:
    """Stacks of so many layers each, found from their names; `without` leaves out a layer."""
    names = (
        f"{prefix}.{layer}.{parameter}"
        for prefix, count in layers.items()
        for layer in range(count)
        for parameter in parameters
    )
    return find_stacks(name for name in names if not without or not name.startswith(f"{without}."))


def described(chosen: tuple[CountedStack, ...]) -> list[tuple[str, int, str, tuple[str, ...]]]:
    return [
        (entry.stack.prefix, entry.layer_count, ".".join(entry.section), entry.count_fields)
        for entry in chosen
    ]


def text(count: int, **fields: Any) -> dict[str, Any]:
    return {"model_type": "llama", "num_hidden_layers": count, **fields}


@pytest.mark.parametrize(
    ("config", "layers", "expected"),
    [
        pytest.param(
            text(4),
            {"model.layers": 4},
            [("model.layers", 4, "", ("num_hidden_layers",))],
            id="flat",
        ),
        pytest.param(
            {"n_layer": 4, "num_hidden_layers": 4},
            {"transformer.h": 4},
            [("transformer.h", 4, "", ("num_hidden_layers", "n_layer"))],
            id="two-names-for-the-count",
        ),
        pytest.param(
            {"text_config": text(4), "vision_config": {"num_hidden_layers": 6}},
            {"language_model.model.layers": 4, "vision_tower.encoder.layers": 6},
            [("language_model.model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="vision-and-language",
        ),
        pytest.param(
            {"text_config": text(4), "vision_config": {"num_hidden_layers": 4}},
            {"model.layers": 4, "model.visual.blocks": 4},
            [("model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="vision-and-language-of-equal-depth",
        ),
        pytest.param(
            {"num_hidden_layers": 4, "vision_config": {"num_hidden_layers": 4}},
            {"model.layers": 4, "visual.blocks": 4},
            [("model.layers", 4, "", ("num_hidden_layers",))],
            id="language-counted-at-the-top",
        ),
        pytest.param(
            {"text_config": {"model_type": "llama"}, "vision_config": {"num_hidden_layers": 6}},
            {"language_model.model.layers": 4, "vision_tower.encoder.layers": 6},
            [("language_model.model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="llava-1.5-leaves-the-text-count-to-a-default",
        ),
        pytest.param(
            {"text_config": text(4), "multimodal_config": text(4)},
            {"text_model.layers": 4, "multimodal_model.layers": 4},
            [("text_model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="section-called-after-its-stack",
        ),
        pytest.param(
            {"text_config": text(4), "num_hidden_layers": 4},
            {"text_model.layers": 4, "cross_modal_layers": 4},
            [("text_model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="count-of-another-stack-at-the-top",
        ),
        pytest.param(
            {"text_config": text(4)},
            {"text_projection": 2, "model.layers": 4},
            [("model.layers", 4, "text_config", ("num_hidden_layers",))],
            id="name-of-a-stack-that-is-not-counted",
        ),
        pytest.param(
            {"model_type": "any", "depth": 4},
            {"blocks": 4},
            [("blocks", 4, "", ("depth",))],
            id="depth",
        ),
        pytest.param(
            {"num_hidden_layers": 4, "depth": 4},
            {"layers": 4},
            [("layers", 4, "", ("num_hidden_layers",))],
            id="depth-of-another-kind",
        ),
        pytest.param(
            {"model_type": "nemotron_h", "layers_block_type": list("abcd")},
            {"backbone.layers": 4},
            [("backbone.layers", 4, "", ("layers_block_type",))],
            id="length-of-a-list",
        ),
        pytest.param(
            {
                "text_config": {"model_type": "nemotron_h", "layers_block_type": list("abcd")},
                "vision_config": {"num_hidden_layers": 4},
            },
            {"language_model.layers": 4, "vision_model.layers": 4},
            [("language_model.layers", 4, "text_config", ("layers_block_type",))],
            id="length-of-a-list-in-a-section",
        ),
        pytest.param(
            {"talker_config": {"code_predictor_config": text(4)}},
            {"talker.layers": 4, "talker.code_predictor.layers": 4},
            [
                (
                    "talker.code_predictor.layers",
                    4,
                    "talker_config.code_predictor_config",
                    ("num_hidden_layers",),
                )
            ],
            id="section-inside-that-of-a-part",
        ),
        pytest.param(
            {"model_type": "nemotron_h", "num_hidden_layers": 4, "hybrid_override_pattern": "MMMM"},
            {"backbone.layers": 4},
            [("backbone.layers", 4, "", ("num_hidden_layers",))],
            id="count-beside-a-list",
        ),
        pytest.param(
            {"thinker_config": {"text_config": text(4), "audio_config": {"encoder_layers": 4}}},
            {"thinker.model.layers": 4, "thinker.audio_tower.layers": 4},
            [("thinker.model.layers", 4, "thinker_config.text_config", ("num_hidden_layers",))],
            id="nested-twice",
        ),
        pytest.param(
            {"num_layers": 4, "num_decoder_layers": 6},
            {"encoder.block": 4, "decoder.block": 6},
            [
                ("encoder.block", 4, "", ("num_layers",)),
                ("decoder.block", 6, "", ("num_decoder_layers",)),
            ],
            id="t5",
        ),
        pytest.param(
            {"num_layers": 4},
            {"encoder.block": 4, "decoder.block": 4},
            [
                ("encoder.block", 4, "", ("num_layers",)),
                ("decoder.block", 4, "", ("num_layers",)),
            ],
            id="t5-with-one-count",
        ),
        pytest.param(
            {"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4},
            {"model.encoder.layers": 4, "model.decoder.layers": 4},
            [
                ("model.encoder.layers", 4, "", ("encoder_layers", "num_hidden_layers")),
                ("model.decoder.layers", 4, "", ("decoder_layers",)),
            ],
            id="bart",
        ),
        pytest.param(
            {"encoder_layers": 32, "decoder_layers": 4, "num_hidden_layers": 32},
            {"model.encoder.layers": 32, "model.decoder.layers": 4},
            [
                ("model.encoder.layers", 32, "", ("encoder_layers", "num_hidden_layers")),
                ("model.decoder.layers", 4, "", ("decoder_layers",)),
            ],
            id="whisper-turbo",
        ),
        pytest.param(
            {"encoder": text(4), "decoder": text(4)},
            {"encoder.encoder.layer": 4, "decoder.bert.encoder.layer": 4},
            [
                ("encoder.encoder.layer", 4, "encoder", ("num_hidden_layers",)),
                ("decoder.bert.encoder.layer", 4, "decoder", ("num_hidden_layers",)),
            ],
            id="encoder-and-decoder-in-sections-of-their-own",
        ),
        pytest.param(
            text(4),
            {"model.decoder.layers": 4},
            [("model.decoder.layers", 4, "", ("num_hidden_layers",))],
            id="opt-is-a-decoder-alone",
        ),
        pytest.param(
            text(4, num_nextn_predict_layers=1),
            {"model.layers": 5},
            [("model.layers", 4, "", ("num_hidden_layers",))],
            id="mtp-behind-the-last-layer",
        ),
        pytest.param(
            text(4, num_nextn_predict_layers=1),
            {"model.layers": 4, "mtp.layers": 1},
            [("model.layers", 4, "", ("num_hidden_layers",))],
            id="mtp-elsewhere",
        ),
        pytest.param(
            {"model_type": "vit", "num_hidden_layers": 4},
            {"vit.encoder.layer": 4},
            [("vit.encoder.layer", 4, "", ("num_hidden_layers",))],
            id="images-alone",
        ),
        pytest.param(
            {"encoder_layers": 4, "decoder_layers": 4, "t2u_encoder_layers": 4},
            {"text_encoder.layers": 4, "text_decoder.layers": 4},
            [
                ("text_encoder.layers", 4, "", ("encoder_layers",)),
                ("text_decoder.layers", 4, "", ("decoder_layers",)),
            ],
            id="sides-called-by-what-they-read",
        ),
        pytest.param(
            {"model_type": "qwen2_audio_encoder", "encoder_layers": 4},
            {"layers": 4},
            [("layers", 4, "", ("encoder_layers",))],
            id="encoder-saved-alone",
        ),
        pytest.param(
            {"text_config": text(4), "qformer_config": text(4)},
            {"language_model.model.decoder.layers": 4, "qformer.encoder.layer": 4},
            [("language_model.model.decoder.layers", 4, "text_config", ("num_hidden_layers",))],
            id="bridge-of-equal-depth-is-no-encoder-of-the-text",
        ),
        pytest.param(
            {"text_config": text(4), "vision_config": {"num_hidden_layers": 6}},
            {"vision_model.encoder.layers": 6},
            [("vision_model.encoder.layers", 6, "vision_config", ("num_hidden_layers",))],
            id="vision-model-of-a-pair-saved-alone",
        ),
        pytest.param(
            {"audio_config": {"num_hidden_layers": 4}},
            {"audio_tower.layers": 4},
            [("audio_tower.layers", 4, "audio_config", ("num_hidden_layers",))],
            id="audio-section-alone",
        ),
    ],
)
def test_language_model_is_chosen_and_its_count_found(
    config: dict[str, Any], layers: dict[str, int], expected: list[Any]
) -> None:
    assert described(choose_stacks(config, stacks(layers))) == expected


@pytest.mark.parametrize(
    ("config", "layers", "prefix", "expected"),
    [
        pytest.param(
            {"text_config": text(4), "vision_config": {"num_hidden_layers": 4}},
            {"model.language_model.layers": 4, "model.vision_tower.layers": 4},
            "model.vision_tower.layers",
            ("model.vision_tower.layers", 4, "vision_config", ("num_hidden_layers",)),
            id="vision",
        ),
        pytest.param(
            {"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4},
            {"model.encoder.layers": 4, "model.decoder.layers": 4},
            "model.decoder.layers",
            ("model.decoder.layers", 4, "", ("decoder_layers",)),
            id="decoder",
        ),
        pytest.param(
            {"num_layers": 4, "num_decoder_layers": 4},
            {"encoder.block": 4, "decoder.block": 4},
            "encoder.block",
            ("encoder.block", 4, "", ("num_layers",)),
            id="encoder",
        ),
        pytest.param(
            {"encoder_layers": 4, "decoder_layers": 4, "speech_encoder_layers": 4},
            {"speech_encoder.encoder.layers": 4, "text_decoder.layers": 4},
            "speech_encoder.encoder.layers",
            ("speech_encoder.encoder.layers", 4, "", ("speech_encoder_layers",)),
            id="field-of-its-own",
        ),
        pytest.param(
            {"encoder_layers": 4, "t2u_encoder_layers": 4},
            {"t2u_model.model.encoder.layers": 4, "text_encoder.layers": 4},
            "text_encoder.layers",
            ("text_encoder.layers", 4, "", ("encoder_layers",)),
            id="beside-one-with-a-field-of-its-own",
        ),
    ],
)
def test_named_stack_is_chosen_alone(
    config: dict[str, Any], layers: dict[str, int], prefix: str, expected: Any
) -> None:
    assert described(choose_stacks(config, stacks(layers), prefix)) == [expected]


@pytest.mark.parametrize("prefix", ["encoder.block", "decoder.block"])
def test_one_side_is_refused_when_one_field_counts_both(prefix: str) -> None:
    found = stacks({"encoder.block": 4, "decoder.block": 4})
    with pytest.raises(RequestError, match="by one field, num_layers") as caught:
        choose_stacks({"num_layers": 4}, found, prefix)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("config", "prefixes"),
    [
        ({"num_hidden_layers": 4}, ("audio.encoder.layers", "audio.positions.layers")),
        ({"vision_config": {"num_hidden_layers": 4}}, ("image_tower.layers", "video_tower.layers")),
    ],
    ids=["without a section", "of one section"],
)
@pytest.mark.parametrize("named", [0, 1])
def test_a_field_that_counts_two_stacks_of_a_sense_counts_neither_alone(
    config: dict[str, Any], prefixes: tuple[str, str], named: int
) -> None:
    found = stacks(dict.fromkeys(prefixes, 4))
    with pytest.raises(RequestError, match="by one field, num_hidden_layers"):
        choose_stacks(config, found, prefixes[named])


PARTS = {"fov_config": {"num_layers": 4}, "patch_model_config": {"num_layers": 4}}


def test_a_section_is_called_after_a_stack_with_model_or_without() -> None:
    (chosen,) = choose_stacks(PARTS, stacks({"patch_encoder.layer": 4}), "patch_encoder.layer")
    assert chosen.section == ("patch_model_config",)


def test_sections_beside_each_other_that_may_be_about_a_stack_are_refused() -> None:
    with pytest.raises(RequestError, match="fov_config, patch_model_config"):
        choose_stacks(PARTS, stacks({"backbone.layer": 4}), "backbone.layer")


def test_one_of_parallel_lists_is_refused() -> None:
    found = stacks({"transformer.attentions": 4, "transformer.ffns": 4})
    with pytest.raises(RequestError, match="several stacks"):
        choose_stacks({"n_layers": 4}, found)
    with pytest.raises(RequestError, match="by one field, n_layers"):
        choose_stacks({"n_layers": 4}, found, "transformer.ffns")


def test_stack_that_is_not_there_is_refused_and_those_that_are_named() -> None:
    with pytest.raises(RequestError, match="no such stack") as caught:
        choose_stacks(text(4), stacks({"model.layers": 4}), "model.layer")
    assert caught.value.hint == "There are: model.layers (4 layers)."


def test_section_that_repeats_the_count_is_known() -> None:
    config = {**text(4), "text_config": text(4), "vision_config": {"num_hidden_layers": 4}}
    (chosen,) = choose_stacks(config, stacks({"model.layers": 4, "visual.blocks": 4}))
    assert (chosen.section, chosen.mirrors) == (("text_config",), ((),))
    assert chosen.siblings == ("visual.blocks",)


@pytest.mark.parametrize(
    ("config", "layers", "message"),
    [
        (text(5), {"model.layers": 4}, "says num_hidden_layers = 5, but no stack"),
        ({"hidden_size": 8}, {"model.layers": 4}, "no field that counts layers"),
        (
            {"text_config": text(5), "vision_config": {"num_hidden_layers": 4}},
            {"model.layers": 4, "vision.layers": 4},
            "text_config.num_hidden_layers = 5",
        ),
        ({"num_hidden_layers": True}, {"model.layers": 1}, "no field that counts layers"),
    ],
)
def test_config_that_contradicts_the_tensors_is_an_error_of_the_checkpoint(
    config: dict[str, Any], layers: dict[str, int], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        choose_stacks(config, stacks(layers))


@pytest.mark.parametrize("lost", [0, 2])
def test_missing_layer_is_named(lost: int) -> None:
    found = stacks({"model.layers": 4}, without=f"model.layers.{lost}")
    with pytest.raises(CheckpointError, match=rf"layer {lost} of 0\.\.3 has no tensors"):
        choose_stacks(text(4), found)


def test_several_missing_layers_are_named() -> None:
    found = find_stacks(["h.0.a.b", "h.0.c.d", "h.1.a.b", "h.4.a.b", "h.9.a.b"])
    with pytest.raises(CheckpointError, match=r"layers 2, 3, 5, 6, 7, … of 0\.\.9 have no tensors"):
        choose_stacks(text(10), found)


def test_nothing_to_scale_is_an_error_of_the_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="no tensor name holds a layer number"):
        choose_stacks(text(4), ())


def test_refused_type_is_refused_even_where_its_tensors_show_no_layers() -> None:
    config = {"model_type": "albert", "num_hidden_layers": 12}
    with pytest.raises(RequestError, match="albert cannot be up-scaled"):
        choose_stacks(config, stacks({"albert.encoder.albert_layer_groups": 1}))


@pytest.mark.parametrize("gap", [(0, 2, 3), (1, 2, 3)])
def test_row_of_convolutions_is_no_stack_that_lost_a_layer(gap: tuple[int, ...]) -> None:
    rows = [f"subsampling.layers.{number}.weight" for number in gap]
    layers = [f"encoder.layers.{layer}.{name}" for layer in range(4) for name in TWO]
    (chosen,) = choose_stacks(text(4), find_stacks([*rows, *layers]))
    assert chosen.stack.prefix == "encoder.layers"
    assert chosen.siblings == ("subsampling.layers",)


def test_row_of_convolutions_alone_is_an_error_of_the_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="layer 1 of"):
        choose_stacks(text(4), find_stacks(["h.0.weight", "h.2.weight", "h.3.weight"]))


def test_stack_of_neither_side_is_not_counted_by_one_of_two() -> None:
    with pytest.raises(CheckpointError, match="no stack of tensors"):
        choose_stacks({"encoder_layers": 4, "decoder_layers": 6}, stacks({"layers": 4}))


def test_decoder_that_is_called_after_its_task_is_no_half_of_a_pair() -> None:
    found = stacks({"prompt_encoder.layers": 4, "detr_decoder.layers": 4})
    with pytest.raises(RequestError, match="several stacks"):
        choose_stacks({"text_config": text(4)}, found)


@pytest.mark.parametrize(
    ("config", "layers", "shown"),
    [
        pytest.param(
            {"mask_decoder_config": text(2), "vision_config": {"num_hidden_layers": 4}},
            {"vision_encoder.layers": 4, "mask_decoder.layers": 2, "prompt_encoder.points": 3},
            "vision_encoder.layers",
            id="mask-decoder",
        ),
        pytest.param(
            {"text_config": {"model_type": "x"}, "timestamp_config": text(2)},
            {"llm.layers": 4, "asr.layers": 7, "timestamp.layers": 2},
            "llm.layers",
            id="text-without-a-count-beside-others",
        ),
    ],
)
def test_choice_that_nothing_settles_is_refused(
    config: dict[str, Any], layers: dict[str, int], shown: str
) -> None:
    with pytest.raises(RequestError, match="counts no language model") as caught:
        choose_stacks(config, stacks(layers))
    assert shown in (caught.value.hint or "")


def test_stack_that_is_named_is_not_taken_for_the_one_without_a_count() -> None:
    config = {"text_config": {"model_type": "llama"}, "vision_config": {"model_type": "x"}}
    found = stacks({"model.layers": 4, "vision.layers": 6})
    with pytest.raises(CheckpointError, match=r"no field that says 6 layers for vision\.layers"):
        choose_stacks(config, found, "vision.layers")


@pytest.mark.parametrize("name", ["coarse", "fine"])
def test_a_named_stack_is_counted_by_the_section_called_after_it(name: str) -> None:
    config = {f"{part}_config": {"num_layers": 4} for part in ("semantic", "coarse", "fine")}
    found = stacks({f"{part}_acoustics.layers": 4 for part in ("semantic", "coarse", "fine")})
    (chosen,) = choose_stacks(config, found, f"{name}_acoustics.layers")
    assert (chosen.section, chosen.mirrors) == ((f"{name}_config",), ())


def test_a_list_of_layers_counts_only_where_it_is_known_to() -> None:
    with pytest.raises(CheckpointError, match="no field that counts"):
        choose_stacks({"layers_block_type": list("abcd")}, stacks({"layers": 4}))


def test_a_count_repeated_at_the_top_for_two_stacks_is_refused() -> None:
    config = {"text_config": text(4), "num_hidden_layers": 4}
    with pytest.raises(RequestError, match="by one field"):
        choose_stacks(config, stacks({"lm.layers": 4, "bridges": 4}), "lm.layers")


def test_a_row_of_convolutions_in_a_part_does_not_bear_its_name() -> None:
    rows = (f"encoder.subsampling.layers.{number}.weight" for number in (0, 2, 3, 5))
    layers = (f"encoder.layers.{layer}.{name}" for layer in range(4) for name in TWO)
    (chosen,) = choose_stacks({"encoder_config": text(4)}, find_stacks([*rows, *layers]))
    assert chosen.stack.prefix == "encoder.layers"


@pytest.mark.parametrize(
    ("prefix", "section"),
    [
        ("thinker.model.layers", ("thinker_config", "text_config")),
        ("talker.model.layers", ("talker_config", "text_config")),
        ("talker.code_predictor.model.layers", ("talker_config", "code_predictor_config")),
    ],
)
def test_of_sections_with_one_count_the_one_that_fits_best_is_meant(
    prefix: str, section: tuple[str, ...]
) -> None:
    config = {
        "talker_config": {"text_config": text(4), "code_predictor_config": text(4)},
        "thinker_config": {"text_config": text(4)},
    }
    found = stacks(
        dict.fromkeys(
            ("thinker.model.layers", "talker.model.layers", "talker.code_predictor.model.layers"), 4
        )
    )
    (chosen,) = choose_stacks(config, found, prefix)
    assert chosen.section == section


def test_a_stack_in_a_part_of_both_sides_is_of_the_inner_one() -> None:
    config = {"encoder_layers": 4, "decoder_layers": 4}
    (chosen,) = choose_stacks(config, stacks({"pixel.decoder.encoder.layers": 4}))
    assert chosen.count_fields == ("encoder_layers",)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [("xlstm", ("num_hidden_layers", "num_blocks")), ("eomt", ("num_hidden_layers",))],
)
def test_blocks_are_layers_but_in_some_types(model_type: str, fields: tuple[str, ...]) -> None:
    config = {"model_type": model_type, "num_hidden_layers": 4, "num_blocks": 4}
    (chosen,) = choose_stacks(config, stacks({"layers": 4}))
    assert chosen.count_fields == fields


def test_a_count_at_the_top_is_not_about_a_stack_with_a_section_of_its_own() -> None:
    config = {"text_config": text(4), "num_hidden_layers": 4}
    found = stacks({"text_model.layers": 4, "cross_modal_layers": 4})
    (chosen,) = choose_stacks(config, found, "cross_modal_layers")
    assert chosen.section == ()


def test_a_count_at_the_top_that_no_other_stack_has_repeats_that_of_a_section() -> None:
    config = {"num_hidden_layers": 4, "model_config": {"num_layers": 4}}
    (chosen,) = choose_stacks(config, stacks({"model.layers": 4}))
    assert {chosen.section, *chosen.mirrors} == {(), ("model_config",)}


def test_the_section_of_another_stack_is_no_repetition() -> None:
    config = {"text_config": text(4), "multimodal_config": text(4)}
    found = stacks({"text_model.layers": 4, "multimodal_model.layers": 4})
    (chosen,) = choose_stacks(config, found, "multimodal_model.layers")
    assert (chosen.section, chosen.mirrors) == (("multimodal_config",), ())
