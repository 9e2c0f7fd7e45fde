from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from ppvcli.engine.precise_bn import recompute_batch_norm
from ppvcli.models.build import build_network
from ppvcli.models.zoo import get_model_row


class Small(nn.Layer):
    """Convolution and BatchNorm with dropout between them, so that a second pass would see other values."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(1)
        self.conv, self.bn = nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4, momentum=0.9)
        self.dropout, self.fc, self.last = nn.Dropout(0.5), nn.Linear(4, 5), nn.BatchNorm1D(5)

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(clips_ntchw.flatten(0, 1))).mean(axis=[2, 3])
        return self.last(self.fc(self.dropout(x)))


def batches(num: int) -> list[paddle.Tensor]:
    rng = np.random.default_rng(4)
    return [paddle.to_tensor((i + rng.standard_normal((2, 3, 3, 8, 8))).astype(np.float32)) for i in range(num)]


def test_statistics_become_the_mean_over_the_batches() -> None:
    network = Small()
    network.train()
    clips = batches(5)
    maps = [network.conv(batch.flatten(0, 1)).numpy() for batch in clips]
    weights = {key: p.numpy() for key, p in network.named_parameters() if not p.stop_gradient}
    assert recompute_batch_norm(network, iter(clips)) == 5
    np.testing.assert_allclose(
        network.bn._mean.numpy(), np.mean([m.mean(axis=(0, 2, 3)) for m in maps], axis=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        network.bn._variance.numpy(), np.mean([m.var(axis=(0, 2, 3)) for m in maps], axis=0), rtol=1e-4
    )
    assert all(np.array_equal(p.numpy(), weights[key]) for key, p in network.named_parameters() if key in weights)
    assert all(p.grad is None for p in network.parameters())


def test_layers_go_on_as_before_afterwards() -> None:
    network = Small()
    network.train()
    recompute_batch_norm(network, batches(2))
    before = network.bn._mean.numpy()
    (clips,) = batches(1)
    network(clips)
    batch_mean = network.conv(clips.flatten(0, 1)).mean(axis=[0, 2, 3]).numpy()
    np.testing.assert_allclose(network.bn._mean.numpy(), 0.9 * before + 0.1 * batch_mean, rtol=1e-4, atol=1e-6)


def test_batch_norm_on_stored_statistics_is_left_alone() -> None:
    network = Small()
    network.train()
    network.bn.eval()
    before = network.bn._mean.numpy(), network.bn._variance.numpy()
    recompute_batch_norm(network, batches(2))
    assert np.array_equal(network.bn._mean.numpy(), before[0])
    assert np.array_equal(network.bn._variance.numpy(), before[1])
    assert not np.array_equal(network.last._variance.numpy(), np.ones(5, np.float32))


@pytest.mark.parametrize("fails", [False, True])
def test_without_a_batch_or_after_a_failure_nothing_has_changed(fails: bool) -> None:
    network = Small()
    network.train()
    before = network.bn._mean.numpy()

    def broken() -> object:
        raise OSError("disk")
        yield

    if fails:
        with pytest.raises(OSError, match="disk"):
            recompute_batch_norm(network, broken())  # type: ignore[arg-type]
    else:
        assert recompute_batch_norm(network, []) == 0
    assert np.array_equal(network.bn._mean.numpy(), before)
    assert network.bn._momentum == 0.9


def test_batch_norm_of_every_family_is_found() -> None:
    for name in ("tsm_efflite0", "pptsmv2_k400_8f"):
        network = build_network(get_model_row(name).network, 4)
        network.train()
        clips = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 8, 3, 32, 32)).astype(np.float32))
        recompute_batch_norm(network, [clips])
        stored = {key: t.numpy() for key, t in network.state_dict().items() if key.endswith("._mean")}
        recompute_batch_norm(network, [clips, clips])
        for key, tensor in network.state_dict().items():
            if key in stored:
                np.testing.assert_allclose(tensor.numpy(), stored[key], atol=1e-5, err_msg=key)
                assert tensor.numpy().any(), key
