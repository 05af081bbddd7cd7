"""ECGFounder (Li et al. 2025): a one-dimensional convolutional network over twelve leads."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pacx.errors import PacxError
from pacx.models.checkpoints import load_matching

#: The published twelve-lead configuration; its features have 1,024 channels.
ECG_FOUNDER = {
    "in_channels": 12,
    "base_filters": 64,
    "ratio": 1,
    "filter_list": (64, 160, 160, 400, 400, 1024, 1024),
    "m_blocks_list": (2, 2, 2, 3, 3, 4, 4),
    "kernel_size": 16,
    "stride": 2,
    "groups_width": 16,
    "use_bn": False,
    "n_classes": 150,
}


def load_ecg_founder(path: str | Path) -> "Net1D":
    """Read the published weights `12_lead_ECGFounder.pth` (Hugging Face, PKUDigitalHealth).

    Nothing in the file is executed: only tensors and plain containers are accepted.

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
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parsers stumble over
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PacxError(
            f"{path} is damaged or holds more than weights, so it was not loaded ({reason}). "
            "Download it again from its publisher."
        ) from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PacxError(f"{path} holds no state dict; give the file 12_lead_ECGFounder.pth.")
    return load_matching(Net1D(**ECG_FOUNDER), state, path).eval()


class Net1D(nn.Module):
    """Stages of bottleneck blocks with grouped convolutions and squeeze-and-excitation.

    Parameter names and shapes are those of the published checkpoint. That checkpoint holds
    batch-norm tensors which the published configuration never uses (`use_bn` is off).

    Args:
        in_channels: Leads.
        base_filters: Channels of the first convolution.
        ratio: Inner channels of a block over its outer channels.
        filter_list: Channels of every stage.
        m_blocks_list: Blocks of every stage; each stage halves the time axis once.
        kernel_size: Of the first and of the grouped convolutions, in samples.
        stride: Of the first convolution and of every stage's first block.
        groups_width: Channels in a group.
        use_bn: Normalise batches before every activation.
        n_classes: Logits.
    """

    def __init__(
        self,
        in_channels: int,
        base_filters: int,
        ratio: float,
        filter_list: Sequence[int],
        m_blocks_list: Sequence[int],
        kernel_size: int,
        stride: int,
        groups_width: int,
        use_bn: bool,
        n_classes: int,
    ):
        super().__init__()
        if len(filter_list) != len(m_blocks_list):
            raise PacxError(
                f"filter_list has {len(filter_list)} stages and m_blocks_list {len(m_blocks_list)}."
            )
        for channels in filter_list:
            if int(channels * ratio) % groups_width:
                raise PacxError(f"{channels} filters do not divide into groups of {groups_width}.")
        self.in_channels = in_channels
        self.use_bn = use_bn
        self.first_conv = SameConv1d(in_channels, base_filters, kernel_size, stride)
        self.first_bn = nn.BatchNorm1d(base_filters)
        self.stage_list = nn.ModuleList()
        channels = base_filters
        for stage, (filters, blocks) in enumerate(zip(filter_list, m_blocks_list, strict=True)):
            self.stage_list.append(
                Stage(
                    [
                        Block(
                            channels if block == 0 else filters,
                            filters,
                            ratio,
                            kernel_size,
                            stride if block == 0 else 1,
                            groups_width,
                            use_bn,
                            is_first=stage == block == 0,
                        )
                        for block in range(blocks)
                    ]
                )
            )
            channels = filters
        self.dense = nn.Linear(channels, n_classes)
        if not use_bn:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits (N, n_classes) of signals (N, in_channels, T)."""
        return self.dense(self.features(signal))

    def features(self, signal: Tensor) -> Tensor:
        """Features (N, D) of signals (N, in_channels, T): the last stage's mean over time.

        Raises:
            PacxError: The signal has another number of leads.
        """
        if signal.ndim != 3 or signal.shape[1] != self.in_channels:
            raise PacxError(
                f"The signal has the shape {tuple(signal.shape)}; "
                f"expected (N, {self.in_channels}, T)."
            )
        x = _activate(self.first_conv(signal.transpose(1, 2)), self.first_bn, self.use_bn)
        for stage in self.stage_list:
            x = stage(x)
        return x.mean(dim=1)


class Stage(nn.Module):
    """Blocks of one width.

    Inside the network channels come last: the many 1x1 convolutions are then plain linear layers,
    and the grouped ones run about twice as fast on a CPU.
    """

    def __init__(self, blocks: list["Block"]):
        super().__init__()
        self.block_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, ceil(T / stride), C')."""
        for block in self.block_list:
            x = block(x)
        return x


class Block(nn.Module):
    """Pre-activation bottleneck: 1x1, grouped, 1x1, squeeze-and-excitation, shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: float,
        kernel_size: int,
        stride: int,
        groups_width: int,
        use_bn: bool,
        is_first: bool,
    ):
        super().__init__()
        inner = int(out_channels * ratio)
        self.stride = stride
        self.use_bn = use_bn
        self.is_first = is_first  # its input has just been activated
        self.bn1 = nn.BatchNorm1d(in_channels)
        self.conv1 = SameConv1d(in_channels, inner, 1)
        self.bn2 = nn.BatchNorm1d(inner)
        self.conv2 = SameConv1d(inner, inner, kernel_size, stride, groups=inner // groups_width)
        self.bn3 = nn.BatchNorm1d(inner)
        self.conv3 = SameConv1d(inner, out_channels, 1)
        self.se_fc1 = nn.Linear(out_channels, out_channels // 2)
        self.se_fc2 = nn.Linear(out_channels // 2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, ceil(T / stride), C')."""
        y = x if self.is_first else _activate(x, self.bn1, self.use_bn)
        y = _activate(self.conv1(y), self.bn2, self.use_bn)
        y = _activate(self.conv2(y), self.bn3, self.use_bn)
        y = self.conv3(y)
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


def _activate(x: Tensor, norm: nn.BatchNorm1d, use_bn: bool) -> Tensor:
    return F.silu(norm(x.flatten(0, 1)).view_as(x) if use_bn else x)


def _same_padding(length: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after so that ceil(length / stride) windows fit; an odd rest goes after."""
    windows = -(-length // stride)
    pad = max(0, (windows - 1) * stride + kernel_size - length)
    return pad // 2, pad - pad // 2
