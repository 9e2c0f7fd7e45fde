"""Every network against what was recorded from the reference: keys, training attributes, logits.

Recipe weights and inputs come from `tests/recipe.py`, the recorded numbers from `tests/goldens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddle import nn

from ppvcli.errors import UsageError
from ppvcli.models.build import build_network, expected_shapes
from ppvcli.models.distilled import DistilledPair
from ppvcli.models.load import load_model
from ppvcli.models.zoo import get_model_row
from ppvcli.specs import NetworkSpec
from tests import recipe

TOLERANCE = 1e-4
"""Of the logits' standard deviation. Two correct float32 programs differ by up to 1.2e-5, a wrong shift by 1e-1."""


def golden_clip(name: str, *, num_frames: int) -> np.ndarray:
    """The input [1, T, 3, 224, 224] that gave `name` of a model's goldens."""
    if "struct" not in name:
        return recipe.plain_clip(num_frames)
    clip = recipe.struct_clip(num_frames)
    if name.endswith("_perm"):
        return clip[:, recipe.permutation(num_frames)]
    return clip[:, ::-1] if name.endswith("_rev") else clip


@pytest.fixture(scope="module", params=recipe.GOLDEN_MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, nn.Layer]]:
    """A model's name and its network, loaded from a file of recipe weights."""
    name = request.param
    path = tmp_path_factory.mktemp("weights") / "recipe.safetensors"
    safetensors.numpy.save_file(recipe.fill_state(recipe.golden_shapes(name)), path)
    network = load_model(name, weights=path)
    path.unlink()  # pytest keeps its folders, and these files have up to 200 MB
    yield name, network


def test_thirteen_models_are_recorded() -> None:
    assert len(recipe.GOLDEN_MODELS) == 13


@pytest.mark.parametrize("name", recipe.GOLDEN_MODELS)
def test_recipe_gives_the_weights_of_the_goldens(name: str) -> None:
    filled = recipe.fill_state(recipe.golden_shapes(name))
    assert recipe.weights_sha256(filled.values()) == str(recipe.golden_logits(name)["weights_sha256"])


@pytest.mark.parametrize("name", recipe.GOLDEN_MODELS)
def test_state_dict_has_the_keys_and_shapes_of_the_reference_in_its_order(name: str) -> None:
    row = get_model_row(name)
    shapes = expected_shapes(row.network, row.num_classes)
    assert list(shapes.items()) == list(recipe.golden_shapes(name).items())


@pytest.mark.parametrize("name", recipe.GOLDEN_MODELS)
def test_parameter_carries_learning_rate_factor_and_weight_decay_of_the_reference(name: str) -> None:
    row = get_model_row(name)
    with paddle.LazyGuard():
        network = build_network(row.network, row.num_classes)
    for key, tensor in network.state_dict().items():
        facts = recipe.golden_keys(name)[key]
        assert tensor.stop_gradient == (facts["kind"] == "stat"), key
        if facts["kind"] == "param":
            decay = None if tensor.regularizer is None else tensor.regularizer._coeff
            assert (tensor.optimize_attr["learning_rate"], decay) == (facts["lr_mult"], facts["l2_override"]), key


def test_every_tensor_of_the_file_arrives_and_is_given_back(model: tuple[str, nn.Layer]) -> None:
    name, network = model
    given_back = network.state_dict()
    assert list(given_back) == list(recipe.golden_shapes(name))
    assert network.load_report.num_loaded == len(given_back)
    assert network.load_report.ignored == network.load_report.reinitialized == ()
    for key, tensor in given_back.items():
        assert np.array_equal(tensor.numpy(), recipe.fill(key, tuple(tensor.shape))), key


@paddle.no_grad()
def test_logits_equal_every_golden(model: tuple[str, nn.Layer]) -> None:
    name, network = model
    goldens = recipe.golden_logits(name)
    num_frames = len(goldens["perm"])
    assert np.array_equal(goldens["perm"], recipe.permutation(num_frames))
    compared = set()

    def compare(logits: paddle.Tensor, golden: str) -> None:
        compared.add(golden)
        difference = np.abs(logits.numpy() - goldens[golden]).max() / goldens[golden].std()
        assert logits.shape == list(goldens[golden].shape)
        assert difference < TOLERANCE, f"{golden}: off by {difference:.1e} of the standard deviation"

    for golden in ("logits", "logits_struct", "logits_struct_perm", "logits_struct_rev"):
        clip = paddle.to_tensor(golden_clip(golden, num_frames=num_frames))
        if isinstance(network, DistilledPair) and golden in ("logits", "logits_struct"):
            kind = "struct" if golden == "logits_struct" else "plain"
            student, teacher = network.forward_both(clip)
            compare(student, golden)
            compare(student, f"logits_student_{kind}")
            compare(teacher, f"logits_teacher_{kind}")
        else:
            compare(network(clip), golden)
    if get_model_row(name).network.architecture == "pptsmv2":
        keys = list(network.state_dict())
        network.reparameterize()
        clip = paddle.to_tensor(golden_clip("struct", num_frames=num_frames))
        compare(network(clip), "logits_struct_repped")
        assert list(network.state_dict()) == keys
    assert compared == {golden for golden in goldens if golden.startswith("logits")}


# --- input ------------------------------------------------------------------------------------------------------------

PPTSMV2 = NetworkSpec(architecture="pptsmv2", num_segments=4)
PAIR = NetworkSpec(architecture="pptsmv2", num_segments=4, teacher=NetworkSpec(architecture="pptsm", num_segments=4))
SMALL = {
    "tsn": NetworkSpec(architecture="tsn"),
    "tsm": NetworkSpec(architecture="tsm", num_segments=4),
    "tsm nhwc": NetworkSpec(architecture="tsm", num_segments=4, data_format="NHWC"),
    "pptsn": NetworkSpec(architecture="pptsn"),
    "pptsm": NetworkSpec(architecture="pptsm", num_segments=4),
    "pptsmv2": PPTSMV2,
    "pair": PAIR,
}


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest) -> nn.Layer:
    """A network of each kind with five classes, in eval mode."""
    paddle.seed(0)
    network = build_network(SMALL[request.param], 5)
    network.eval()
    return network


def test_forward_leaves_the_callers_clips_as_they_were(small: nn.Layer) -> None:
    clips = paddle.randn([2, 4, 3, 32, 32])
    before = clips.numpy()
    first, second = small(clips), small(clips)
    assert clips.shape == [2, 4, 3, 32, 32]
    assert np.array_equal(clips.numpy(), before)
    assert first.shape == [2, 5]
    assert np.array_equal(first.numpy(), second.numpy())


def test_clips_of_a_batch_do_not_see_each_other(small: nn.Layer) -> None:
    clips = paddle.randn([2, 4, 3, 32, 32])
    alone = np.concatenate([small(clips[:1]).numpy(), small(clips[1:]).numpy()])
    # another batch size may sum in another order
    assert np.abs(small(clips).numpy() - alone).max() < 1e-5 * max(1.0, np.abs(alone).max())


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (1, 4, 32, 32, 3), (1, 4, 1, 32, 32)], ids=str)
def test_clips_of_another_layout_are_refused(small: nn.Layer, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"takes clips \[N, .*, 3, H, W\], got an array of shape \["):
        small(paddle.zeros(shape))


@pytest.mark.parametrize("kind", [kind for kind in SMALL if "tsn" not in kind])
@pytest.mark.parametrize("num_frames", [3, 8])
def test_shifting_network_refuses_another_number_of_frames(kind: str, num_frames: int) -> None:
    with paddle.LazyGuard():
        network = build_network(SMALL[kind], 5)
    with pytest.raises(UsageError, match=rf"\[N, 4, 3, H, W\], got an array of shape \[2, {num_frames}, 3, 32, 32\]"):
        network(paddle.zeros([2, num_frames, 3, 32, 32]))


# --- training ---------------------------------------------------------------------------------------------------------


def inputs_of(layer: nn.Layer) -> list[np.ndarray]:
    """What `layer` is given from now on."""
    seen: list[np.ndarray] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    return seen


# TSN and PP-TSN: mean, then dropout. TSM: dropout, then fc, then mean. PP-TSM: dropout, then mean, then fc.
@pytest.mark.parametrize(
    ("kind", "shape", "values"),
    [
        ("tsn", (1, 2048), {0.0, 2.0}),
        ("pptsn", (1, 2048), {0.0, 2.0}),
        ("tsm", (4, 2048), {0.0, 2.0}),
        ("pptsm", (1, 2048), {0.0, 0.5, 1.0, 1.5, 2.0}),
    ],
)
def test_head_in_training_drops_and_averages_in_the_order_of_the_reference(
    kind: str, shape: tuple[int, ...], values: set[float]
) -> None:
    paddle.seed(0)
    head = build_network(SMALL[kind], 5, dropout=0.5).head
    seen = inputs_of(head.fc)
    logits = head(paddle.ones([4, 2048]), 4)
    assert logits.shape == [1, 5]
    assert seen[0].shape == shape
    assert set(np.unique(seen[0])) == values


@pytest.mark.parametrize(("kind", "dropout"), [("tsn", 0.4), ("pptsn", 0.4), ("tsm", 0.5), ("pptsm", 0.5)])
def test_dropout_by_default_is_the_familys_own(kind: str, dropout: float) -> None:
    with paddle.LazyGuard():
        assert build_network(SMALL[kind], 5).head.dropout.p == dropout
        assert build_network(SMALL[kind], 5, dropout=0.0).head.dropout.p == 0.0


def test_pptsmv2_dropout_scales_in_eval_and_not_in_training() -> None:
    paddle.seed(0)
    dropout = build_network(PPTSMV2, 5).backbone.dropout
    ones = paddle.ones([4, 1280])
    dropped = dropout(ones).numpy()
    assert set(np.unique(dropped)) == {0.0, 1.0}
    assert 0.75 < dropped.mean() < 0.85
    dropout.eval()
    assert np.allclose(dropout(ones).numpy(), 0.8)


@pytest.mark.parametrize(("kind", "std"), [("tsn", 0.01), ("tsm", 0.001), ("pptsn", 0.01), ("pptsm", 0.01)])
def test_classifier_starts_with_the_std_of_its_head(kind: str, std: float) -> None:
    paddle.seed(0)
    with paddle.LazyGuard():
        fc = build_network(SMALL[kind], 50).head.fc
    for parameter in (fc.weight, fc.bias):
        parameter.initialize()
    assert fc.weight.numpy().std() == pytest.approx(std, rel=0.02)  # of 102,400 values: 0.2 % is one deviation
    assert not fc.bias.numpy().any()


def test_convolutions_start_with_the_std_of_their_fan_in() -> None:
    paddle.seed(0)
    for key, tensor in build_network(PPTSMV2, 5).state_dict().items():
        if len(tensor.shape) == 4 and tensor.size > 10_000:
            fan_in = np.prod(tensor.shape[1:])
            assert tensor.numpy().std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.05), key
        elif key.endswith(".bias"):
            assert not tensor.numpy().any(), key


def test_both_networks_of_a_pair_learn() -> None:
    paddle.seed(0)
    pair = build_network(PAIR, 5)
    student, teacher = pair.forward_both(paddle.randn([1, 4, 3, 32, 32]))
    (student.sum() + teacher.sum()).backward()
    grads = {key for key, parameter in pair.named_parameters() if parameter.grad is not None}
    trainable = {key for key, parameter in pair.named_parameters() if not parameter.stop_gradient}
    assert {"Student.0.stem.0.conv.weight", "Teacher.0.conv1_1._conv.weight", "Teacher.1.fc.bias"} <= grads
    # the merged convolution of each of the 8 multi-branch blocks waits for `reparameterize`
    assert len(trainable - grads) == 16
    assert all(".dw_conv." in key for key in trainable - grads)


def test_reparameterize_twice_changes_nothing_more() -> None:
    paddle.seed(0)
    network = build_network(PPTSMV2, 5)
    network.eval()
    clips = paddle.randn([1, 4, 3, 32, 32])
    network.reparameterize()
    once = network(clips).numpy()
    network.reparameterize()
    assert np.array_equal(network(clips).numpy(), once)


def test_reference_goldens_in_the_repository_are_those_of_the_shared_folder(shared_dir: Path) -> None:
    import json

    for name in recipe.GOLDEN_MODELS:
        keys = json.loads((shared_dir / "reference" / "keys" / f"{name}.keys.json").read_text())
        facts = ("shape", "kind", "lr_mult", "l2_override")
        assert recipe.golden_keys(name) == {key: {f: row.get(f) for f in facts} for key, row in keys.items()}
        with np.load(shared_dir / "reference" / "golden" / f"{name}.golden.npz") as file:
            for golden, array in recipe.golden_logits(name).items():
                assert np.array_equal(array, file[golden])
            assert {f for f in file.files if "logits" in f} <= set(recipe.golden_logits(name))
