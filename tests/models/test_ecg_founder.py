import os

import pytest
import torch
import torch.nn.functional as F

from pacx.errors import PacxError
from pacx.models.ecg_founder import ECG_FOUNDER, Block, Net1D, SameConv1d, load_ecg_founder

SMALL = {
    "in_channels": 12, "base_filters": 16, "filter_list": (16, 32), "m_blocks_list": (2, 1),
    "kernel_size": 16, "stride": 2, "groups_width": 16, "n_classes": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return Net1D(**ECG_FOUNDER).eval()


def test_complete_weights_are_read(published, tmp_path):
    torch.save({"epoch": 3, "state_dict": published.state_dict()}, tmp_path / "weights.pth")
    loaded = load_ecg_founder(tmp_path / "weights.pth")
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), published.parameters()))  # noqa: B905


@pytest.mark.parametrize("damage", ["missing", "unexpected", "small"])
def test_partly_matching_weights_are_refused(published, tmp_path, damage):
    state = dict(published.state_dict())
    if damage == "missing":
        del state["dense.weight"]
    elif damage == "unexpected":
        state["dense.extra"] = torch.zeros(1)
    else:
        state = Net1D(**SMALL).state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    with pytest.raises(PacxError, match="do not fit Net1D") as caught:
        load_ecg_founder(tmp_path / "weights.pth")
    assert {"missing": "dense.weight", "unexpected": "dense.extra", "small": "missing"}[
        damage
    ] in str(caught.value)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(PacxError, match="holds more than weights"):
        load_ecg_founder(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_missing_and_damaged_files_are_one_clear_error(tmp_path):
    with pytest.raises(PacxError, match="Download"):
        load_ecg_founder(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(PacxError, match="damaged"):
        load_ecg_founder(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(PacxError, match="no state dict"):
        load_ecg_founder(tmp_path / "list.pth")


@pytest.mark.parametrize("kernel", [1, 15, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [100, 101])
def test_same_convolution_pads_as_stated(kernel, stride, groups, length):
    torch.manual_seed(0)
    layer, x = (
        SameConv1d(4, 6, kernel, stride, groups),
        torch.randn(2, 4, length),
    )
    out = -(-length // stride)
    pad = max(0, (out - 1) * stride + kernel - length)
    expected = layer.conv(F.pad(x, (pad // 2, pad - pad // 2)))
    assert torch.allclose(layer(x.transpose(1, 2)).transpose(1, 2), expected, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", [1, 2, 17, 99, 100])
def test_shortcuts_pool_as_ecg_founders(stride, length):
    torch.manual_seed(0)
    block = Block(4, 4, 3, stride, groups_width=2, is_first=True)
    x, pad = torch.randn(2, 4, length) - 1, stride - 1
    padded = F.pad(x, (pad // 2, pad - pad // 2))  # its MyMaxPool1dPadSame
    found = block._shortcut(x.transpose(1, 2), 4).transpose(1, 2)
    assert torch.equal(found, F.max_pool1d(padded, stride))
    assert block(x.transpose(1, 2)).shape == (2, found.shape[2], 4)


def test_small_networks_train():
    torch.manual_seed(0)
    net = Net1D(**SMALL)
    x = torch.randn(4, 12, 333)
    assert net.features(x).shape == (4, 32)
    net(x).square().mean().backward()
    trained = [n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()]
    assert not any("bn" in name for name in trained)
    assert {"first_conv.conv.weight", "dense.weight"} <= set(trained)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(PacxError, match="groups"):
        Net1D(**SMALL | {"filter_list": (16, 30)})
    with pytest.raises(PacxError, match="stages"):
        Net1D(**SMALL | {"m_blocks_list": (1,)})
