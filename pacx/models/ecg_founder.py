"""ECGFounder (Li et al. 2025): a one-dimensional convolutional network over twelve leads."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pacx.errors import PacxError
from pacx.models.checkpoints import load_matching, read_weights

#: The published twelve-lead configuration; its features have 1,024 channels.
ECG_FOUNDER = {
    "in_channels": 12,
    "base_filters": 64,
    "filter_list": (64, 160, 160, 400, 400, 1024, 1024),
    "m_blocks_list": (2, 2, 2, 3, 3, 4, 4),
    "kernel_size": 16,
    "stride": 2,
    "groups_width": 16,
    "n_classes": 150,
}


def load_ecg_founder(path: str | Path) -> "Net1D":
    """Read the published weights `12_lead_ECGFounder.pth` (Hugging Face, PKUDigitalHealth).

    Returns:
        The network in evaluation mode; input is (N, 12, T) in the order `LEADS_ECGFOUNDER`, 500 Hz.

    Raises:
        PacxError: The file is missing, holds anything but weights, or does not match completely.
    """
    path = Path(path)
    if not path.is_file():
        raise PacxError(
            f"{path} does not exist. Download 12_lead_ECGFounder.pth from "
            "https://huggingface.co/PKUDigitalHealth/ECGFounder and give its path."
        )
    return load_matching(Net1D(**ECG_FOUNDER), read_weights(path), path).eval()


class Net1D(nn.Module):
    """Stages of bottleneck blocks with grouped convolutions and squeeze-and-excitation.

    Parameter names and shapes are those of the published checkpoint. That checkpoint holds
    batch-norm tensors which the published configuration never uses. Inside, channels come last: the
    many 1x1 convolutions are then plain linear layers, and the grouped ones run about twice as fast
    on a CPU.

    Args:
        in_channels: Leads.
        base_filters: Channels of the first convolution.
        filter_list: Channels of every stage.
        m_blocks_list: Blocks of every stage; each stage halves the time axis once.
        kernel_size: Of the first and of the grouped convolutions, in samples.
        stride: Of the first convolution and of every stage's first block.
        groups_width: Channels in a group.
        n_classes: Logits.
    """

    def __init__(
        self,
        in_channels: int,
        base_filters: int,
        filter_list: Sequence[int],
        m_blocks_list: Sequence[int],
        kernel_size: int,
        stride: int,
        groups_width: int,
        n_classes: int,
    ):
        super().__init__()
        if len(filter_list) != len(m_blocks_list):
            raise PacxError(
                f"filter_list has {len(filter_list)} stages and m_blocks_list {len(m_blocks_list)}."
            )
        for channels in filter_list:
            if channels % groups_width:
                raise PacxError(f"{channels} filters do not divide into groups of {groups_width}.")
        self.first_conv = SameConv1d(in_channels, base_filters, kernel_size, stride)
        self.first_bn = nn.BatchNorm1d(base_filters)
        self.stage_list = nn.ModuleList()
        channels = base_filters
        for stage, (filters, blocks) in enumerate(zip(filter_list, m_blocks_list, strict=True)):
            stage_blocks = [
                Block(
                    channels if block == 0 else filters,
                    filters,
                    kernel_size,
                    stride if block == 0 else 1,
                    groups_width,
                    is_first=stage == block == 0,
                )
                for block in range(blocks)
            ]
            named = OrderedDict(block_list=nn.Sequential(*stage_blocks))
            self.stage_list.append(nn.Sequential(named))
            channels = filters
        self.dense = nn.Linear(channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits (N, n_classes) of signals (N, in_channels, T)."""
        return self.dense(self.features(signal))

    def features(self, signal: Tensor) -> Tensor:
        """Features (N, D) of signals (N, in_channels, T): the last stage's mean over time."""
        x = F.silu(self.first_conv(signal.transpose(1, 2)))
        for stage in self.stage_list:
            x = stage(x)
        return x.mean(dim=1)


class Block(nn.Module):
    """Pre-activation bottleneck: 1x1, grouped, 1x1, squeeze-and-excitation, shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        groups_width: int,
        is_first: bool,
    ):
        super().__init__()
        self.stride = stride
        self.is_first = is_first  # its input has just been activated
        self.bn1 = nn.BatchNorm1d(in_channels)
        self.conv1 = SameConv1d(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm1d(out_channels)
        self.conv2 = SameConv1d(
            out_channels, out_channels, kernel_size, stride, out_channels // groups_width
        )
        self.bn3 = nn.BatchNorm1d(out_channels)
        self.conv3 = SameConv1d(out_channels, out_channels, 1)
        self.se_fc1 = nn.Linear(out_channels, out_channels // 2)
        self.se_fc2 = nn.Linear(out_channels // 2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, ceil(T / stride), C')."""
        y = x if self.is_first else F.silu(x)
        y = self.conv3(F.silu(self.conv2(F.silu(self.conv1(y)))))
        gate = self.se_fc2(F.silu(self.se_fc1(y.mean(dim=1)))).sigmoid()
        return torch.addcmul(self._shortcut(x, y.shape[2]), y, gate[:, None])

    def _shortcut(self, x: Tensor, channels: int) -> Tensor:
        """Max-pool in time and add zero channels on both sides.

        Zeros stand before and after, as in ECGFounder's code: stride - 1 whatever the length, the
        lesser half before. For a stride of 2, an odd last window is max(x[-1], 0).
        """
        if self.stride > 1:
            windows, left = -(-x.shape[1] // self.stride), (self.stride - 1) // 2
            # What no window would reach is cut off: then the last number is negative.
            x = F.pad(x, (0, 0, left, windows * self.stride - x.shape[1] - left))
            x = x.unflatten(1, (-1, self.stride)).amax(dim=2)
        grow = channels - x.shape[2]
        return F.pad(x, (grow // 2, grow - grow // 2)) if grow else x


class SameConv1d(nn.Module):
    """Convolution over time, zero-padded as TensorFlow's "same"."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, ceil(T / stride), C')."""
        conv = self.conv
        if conv.kernel_size == conv.stride == (1,) and conv.groups == 1:
            return F.linear(x, conv.weight[:, :, 0], conv.bias)
        left, right = _same_padding(x.shape[1], conv.kernel_size[0], conv.stride[0])
        if left != right:
            x = F.pad(x, (0, 0, left, right))
        # As an image one pixel high, whose channels-last layout the fast kernels recognise.
        image = x.transpose(1, 2).unsqueeze(2)
        padding = (0, left if left == right else 0)
        image = F.conv2d(
            image, conv.weight[:, :, None], conv.bias, (1, conv.stride[0]), padding, 1, conv.groups
        )
        return image.squeeze(2).transpose(1, 2)


def _same_padding(length: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after so that ceil(length / stride) windows fit; an odd rest goes after."""
    windows = -(-length // stride)
    pad = max(0, (windows - 1) * stride + kernel_size - length)
    return pad // 2, pad - pad // 2
