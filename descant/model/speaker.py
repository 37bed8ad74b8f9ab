"""The speaker encoder of the DiT: a reference mel becomes one vector (ECAPA-TDNN, arXiv 2005.07143)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from descant.config import EcapaConfig

STD_FLOOR = 1e-12  # variance floor of the statistics pooling; the reference's value


class TimeDelay(nn.Module):
    """A 1-D convolution that keeps its length (reflect padding), then ReLU. x (B, D, T) -> (B, D', T)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding="same", padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class Res2Net(nn.Module):
    """Channel groups convolved one after the other, each reading the group before it; the first passes through."""

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int):
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(TimeDelay(width, width, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.chunk(len(self.blocks) + 1, dim=1)
        outputs = [first]
        for i, (block, group) in enumerate(zip(self.blocks, rest, strict=True)):
            outputs.append(block(group if i == 0 else group + outputs[-1]))
        return torch.cat(outputs, dim=1)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate read from the channels' means over time."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv1 = nn.Conv1d(channels, squeezed, 1)
        self.conv2 = nn.Conv1d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=2, keepdim=True)
        return x * torch.sigmoid(self.conv2(torch.relu(self.conv1(mean))))


class SeRes2Net(nn.Module):
    """1x1, Res2Net, 1x1, squeeze-excite, residual. The official blocks keep the number of channels."""

    def __init__(self, cfg: EcapaConfig, index: int):
        super().__init__()
        inputs, channels = cfg.channels[index - 1], cfg.channels[index]
        self.tdnn1 = TimeDelay(inputs, channels, 1, 1)
        self.res2net_block = Res2Net(channels, cfg.res2net_scale, cfg.kernel_sizes[index], cfg.dilations[index])
        self.tdnn2 = TimeDelay(channels, channels, 1, 1)
        self.se_block = SqueezeExcite(channels, cfg.se_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))
        return y


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over time, weighted by a learnt attention. x (B, D, T) -> (B, 2D, 1)."""

    def __init__(self, channels: int, attention_channels: int):
        super().__init__()
        self.tdnn = TimeDelay(3 * channels, attention_channels, 1, 1)
        self.conv = nn.Conv1d(attention_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        uniform = x.new_full((1, 1, x.shape[2]), 1.0 / x.shape[2])
        mean, std = self.moments(x, uniform)
        context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
        weights = torch.softmax(self.conv(torch.tanh(self.tdnn(context))), dim=2)
        return torch.cat(self.moments(x, weights), dim=1)

    @staticmethod
    def moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        mean = (weights * x).sum(dim=2, keepdim=True)
        variance = (weights * (x - mean).square()).sum(dim=2, keepdim=True)
        return mean, variance.clamp(min=STD_FLOOR).sqrt()


class Ecapa(nn.Module):
    """ref_mel (B, T, M) -> (B, enc_dim). T must exceed ``min_frames`` (the reflect padding needs frames to mirror)."""

    def __init__(self, cfg: EcapaConfig):
        super().__init__()
        last = len(cfg.channels) - 1
        self.blocks = nn.ModuleList([TimeDelay(cfg.mel_dim, cfg.channels[0], cfg.kernel_sizes[0], cfg.dilations[0])])
        self.blocks.extend(SeRes2Net(cfg, i) for i in range(1, last))
        width = cfg.channels[last]
        self.mfa = TimeDelay(width, width, cfg.kernel_sizes[last], cfg.dilations[last])
        self.asp = AttentiveStatistics(width, cfg.attention_channels)
        self.fc = nn.Conv1d(2 * width, cfg.enc_dim, 1)
        self.min_frames = 1 + max(d * (k - 1) // 2 for k, d in zip(cfg.kernel_sizes, cfg.dilations, strict=True))

    def forward(self, ref_mel: Tensor) -> Tensor:
        x = ref_mel.transpose(1, 2)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        pooled = self.asp(self.mfa(torch.cat(outputs[1:], dim=1)))
        vector: Tensor = self.fc(pooled)
        return vector.squeeze(-1)
