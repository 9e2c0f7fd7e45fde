"""EfficientNet-Lite0 against a NumPy forward pass written from its table of stages, and against real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.errors import UsageError, WeightsError, WeightsFormatError
from ppvcli.models.tsm_efflite0 import SHIFT_RATIO, STAGES, InvertedResidual, TSMEfficientNetLite0, imagenet_state
from ppvcli.specs import NetworkSpec
from ppvcli.video.decoding import read_frames
from ppvcli.weights.torch_legacy import find_efflite0_file, read_torch_legacy

SPEC = NetworkSpec(architecture="tsm_efflite0", num_segments=8)
EPSILON = 1e-3


@pytest.fixture(scope="module")
def imagenet() -> dict[str, np.ndarray]:
    try:
        return read_torch_legacy(find_efflite0_file())
    except WeightsError as error:
        pytest.skip(f"needs the backbone from pip: {error.message}")


def numpy_conv_bn(x: np.ndarray, t: dict[str, np.ndarray], conv: str, bn: str, *, stride: int = 1) -> np.ndarray:
    """x [C, H, W]; "same" padding by TensorFlow's formula; dense or depthwise by the shape of the kernel."""
    kernel = t[f"{conv}.weight"].astype(np.float64)
    size, outs = kernel.shape[-1], [-(-n // stride) for n in x.shape[1:]]
    pads = [max((out - 1) * stride + size - n, 0) for out, n in zip(outs, x.shape[1:], strict=True)]
    x = np.pad(x, [(0, 0), *[(pad // 2, pad - pad // 2) for pad in pads]])
    total = np.zeros((kernel.shape[0], *outs))
    for i in range(size):
        for j in range(size):
            patch = x[:, i : i + outs[0] * stride : stride, j : j + outs[1] * stride : stride][:, : outs[0], : outs[1]]
            if kernel.shape[1] == 1:
                total += kernel[:, 0, i, j, None, None] * patch
            else:
                total += np.tensordot(kernel[:, :, i, j], patch, axes=1)
    scale = t[f"{bn}.weight"] / np.sqrt(t[f"{bn}.running_var"] + EPSILON)
    return (total - t[f"{bn}.running_mean"][:, None, None]) * scale[:, None, None] + t[f"{bn}.bias"][:, None, None]


def relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


def numpy_features(x: np.ndarray, t: dict[str, np.ndarray]) -> np.ndarray:
    """Pooled features [1280] of one frame [3, H, W], without any shift."""
    x = relu6(numpy_conv_bn(x, t, "_conv_stem", "_bn0", stride=2))
    number = 0
    for _, stride, expansion, _, num_blocks in STAGES:
        for block in range(num_blocks):
            name, inside = f"_blocks.{number}", x
            if expansion > 1:
                inside = relu6(numpy_conv_bn(inside, t, f"{name}._expand_conv", f"{name}._bn0"))
            inside = numpy_conv_bn(
                inside, t, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride if block == 0 else 1
            )
            inside = numpy_conv_bn(relu6(inside), t, f"{name}._project_conv", f"{name}._bn2")
            x = x + inside if block else inside
            number += 1
    return relu6(numpy_conv_bn(x, t, "_conv_head", "_bn1")).mean(axis=(1, 2))


def without_shift(network: TSMEfficientNetLite0) -> TSMEfficientNetLite0:
    for layer in network.sublayers():
        if isinstance(layer, InvertedResidual):
            layer.shift = None
    return network


def pretrained(imagenet: dict[str, np.ndarray]) -> TSMEfficientNetLite0:
    network = TSMEfficientNetLite0(SPEC, 10)
    state = imagenet_state(imagenet)
    own = {key: tuple(value.shape) for key, value in network.state_dict().items() if key.startswith("backbone.")}
    assert own == {key: value.shape for key, value in state.items()}
    network.set_state_dict({**network.state_dict(), **state})
    network.eval()
    return network


@pytest.mark.parametrize("hw", [(64, 64), (70, 45)])
def test_features_equal_a_numpy_forward_pass(hw: tuple[int, int], imagenet: dict[str, np.ndarray]) -> None:
    frames = np.random.default_rng(0).standard_normal((2, 3, *hw)).astype(np.float32)
    features = without_shift(pretrained(imagenet)).backbone(paddle.to_tensor(frames)).numpy()
    for got, frame in zip(features, frames, strict=True):
        expected = numpy_features(frame.astype(np.float64), imagenet)
        # float32 against float64 through 50 layers
        assert np.abs(got - expected).max() < 1e-4 * max(1.0, expected.std())


@pytest.mark.parametrize(("action", "imagenet_class"), [("Billiards", 736), ("BalanceBeam", 416), ("TennisSwing", 752)])
def test_imagenet_classifier_names_what_a_real_frame_shows(
    action: str, imagenet_class: int, imagenet: dict[str, np.ndarray], shared_dir: Path
) -> None:
    clip = sorted((shared_dir / "data" / "ucf101" / "videos" / action).glob("*.avi"))[0]
    frame = read_frames(clip, [40])[0, 8:232, 48:272].astype(np.float32)
    x = paddle.to_tensor(((frame - 127) / 128).transpose(2, 0, 1)[None])
    features = without_shift(pretrained(imagenet)).backbone(x).numpy()[0]
    logits = imagenet["_fc.weight"] @ features + imagenet["_fc.bias"]
    assert imagenet_class in np.argsort(-logits)[:3]  # pool table, balance beam, racket


def test_branch_sees_the_neighbouring_frames() -> None:
    block = InvertedResidual(16, 16, kernel=3, stride=1, expansion=1, residual=True, shift=4)
    seen = []
    block.depthwise.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    block.eval()
    x = np.random.default_rng(1).standard_normal((8, 16, 5, 5)).astype(np.float32)
    block(paddle.to_tensor(x))
    clips, moved = x.reshape(2, 4, 16, 5, 5), np.zeros((2, 4, 16, 5, 5), np.float32)
    moved[:, 1:, :2] = clips[:, :-1, :2]
    moved[:, :-1, 2:4] = clips[:, 1:, 2:4]
    moved[:, :, 4:] = clips[:, :, 4:]
    assert np.array_equal(seen[0].reshape(clips.shape), moved)
    assert SHIFT_RATIO * 16 == 2


def test_only_residual_blocks_of_the_last_stages_shift() -> None:
    stages = TSMEfficientNetLite0(SPEC, 3).backbone.stages
    shifting = [(s + 1, b) for s, stage in enumerate(stages) for b, block in enumerate(stage) if block.shift]
    assert shifting == [(5, 1), (5, 2), (6, 1), (6, 2), (6, 3)]


def test_frozen_stages_keep_their_weights_and_have_no_gradient() -> None:
    paddle.seed(0)
    network = TSMEfficientNetLite0(SPEC, 3)
    network.backbone.freeze_stages(4)
    network.train()
    network(paddle.randn([1, 8, 3, 32, 32])).sum().backward()
    for name, parameter in network.named_parameters():
        if name.endswith(("_mean", "_variance")):
            continue  # statistics, which Paddle counts among the parameters
        frozen = name.startswith(("backbone.stem.", *(f"backbone.stages.{i}." for i in range(4))))
        assert parameter.stop_gradient == frozen
        assert (parameter.grad is None) == frozen, name


def test_wrong_number_of_frames_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[N, 8, 3, H, W\], got an array of shape \[1, 4, 3, 32, 32\]"):
        TSMEfficientNetLite0(SPEC, 3)(paddle.zeros([1, 4, 3, 32, 32]))


def test_file_of_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="tensors missing"):
        imagenet_state({"_conv_stem.weight": np.zeros(1, np.float32)})
