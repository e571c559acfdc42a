"""Convolutional networks as they are written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.families.family import Family, floats, in_order

KIND = "convolutional networks"


def lenet() -> nn.Module:
    """(B, 1, 16, 16) -> (B, 3): tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.Tanh(),
        nn.Linear(10, 3),
    )


def alexnet() -> nn.Module:
    """(B, 3, 32, 32) -> (B, 3): local response normalisation, overlapping pools, dropout in place."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Dropout(0.5, inplace=True),
        nn.Linear(108, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5, inplace=True),
        nn.Linear(16, 3),
    )


class SqueezeExcite(nn.Module):
    """Channels weighed by a sigmoid of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(
        self, into: int, out: int, stride: int, act: type[nn.Module], excite: bool
    ) -> None:
        super().__init__()
        wide = 2 * into
        self.body = nn.Sequential(
            nn.Conv2d(into, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            act(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            act(inplace=True),
            SqueezeExcite(wide) if excite else nn.Identity(),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.adds = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet(act: type[nn.Module] = nn.ReLU6, excite: bool = False) -> nn.Module:
    """(B, 3, 32, 32) -> (B, 3), dropout in place before the classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        act(inplace=True),
        InvertedResidual(8, 8, 1, act, excite),
        InvertedResidual(8, 12, 2, act, excite),
        InvertedResidual(12, 12, 1, act, excite),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(12, 3),
    )


class DenseNet(nn.Module):
    """(B, 3, 16, 16) -> (B, 3): every layer sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 10, 14)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        self.norm, self.head = nn.BatchNorm2d(18), nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            seen.append(conv(F.relu(norm(torch.cat(seen, 1)), inplace=True)))
        x = F.relu(self.norm(torch.cat(seen, 1)), inplace=True)
        return self.head(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Inception(nn.Module):
    """(B, 3, 16, 16) -> (B, 3): branches of several widths side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.one, self.three = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1)
        self.five, self.pooled = nn.Conv2d(6, 4, 5, padding=2), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        branches = [self.one(x), self.three(x), self.five(x)]
        branches.append(self.pooled(F.max_pool2d(x, 3, 1, 1)))
        return self.head(F.relu(torch.cat(branches, 1)).mean((-2, -1)))


class ShuffleNet(nn.Module):
    """(B, 3, 16, 16) -> (B, 3): grouped convolutions, channels split and shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffle = nn.Conv2d(3, 8, 3, 2, 1), nn.ChannelShuffle(2)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, groups=2) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        for conv in self.convs:
            left, right = x.chunk(2, 1)
            x = self.shuffle(torch.cat([left, F.leaky_relu(conv(right), 0.1)], 1))
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """(B, 3, 16, 16) -> (B, 2, 16, 16): down, up by transposed convolution, joined across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 10, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(10, 6, 2, 2), nn.Conv2d(12, 6, 3, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = F.relu(self.down1(x))
        low = F.relu(self.down2(F.max_pool2d(high, 2)))
        x = torch.cat([self.up(low), high], 1)
        return self.head(F.relu(self.norm(self.join(x))))


class FeaturePyramid(nn.Module):
    """(B, 3, 16, 16) -> (B, 3, 16, 16): levels interpolated and added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.third, self.head = nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.first(x))
        b = F.relu(self.second(a))
        c = F.relu(self.third(b))
        b = b + F.interpolate(c, scale_factor=2, mode="nearest")
        return self.head(a + F.interpolate(b, size=(16, 16), mode="bilinear", align_corners=False))


def super_resolution() -> nn.Module:
    """(B, 1, 8, 8) -> (B, 1, 16, 16) by sub-pixel convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.PReLU(6),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Sigmoid(),
    )


class SpatialTransformer(nn.Module):
    """(B, 1, 16, 16) -> (B, 3): the image sampled on a grid that the network chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.conv = nn.Linear(256, 6), nn.Conv2d(1, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        near = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=x.dtype)
        theta = near + 0.1 * torch.tanh(self.place(x.flatten(1)))
        grid = F.affine_grid(theta.view(-1, 2, 3), list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


def volumes() -> nn.Module:
    """(B, 1, 6, 12, 12) -> (B, 3): a CNN on volumes."""
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.InstanceNorm3d(4, affine=True),
        nn.ELU(inplace=True),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout3d(0.2, inplace=True),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def signals() -> nn.Module:
    """(B, 2, 48) -> (B, 3): a CNN on signals."""
    return nn.Sequential(
        nn.Conv1d(2, 6, 7, stride=2, padding=3),
        nn.BatchNorm1d(6),
        nn.GELU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class ImageAndTable(nn.Module):
    """(B, 3, 16, 16) and (B, 5) -> (B, 3): a table's columns scale the channels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.scale, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        x = F.relu(self.first(image)) * torch.sigmoid(self.scale(table))[:, :, None, None]
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Siamese(nn.Module):
    """Two images (B, 1, 12, 12) -> (B,): the distance of what one network makes of each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 8)

    def tower(self, x: Tensor) -> Tensor:
        return self.embed(F.relu(self.conv(x)).mean((2, 3)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.tower(left), self.tower(right))


class BilinearPooling(nn.Module):
    """(B, 3, 16, 16) -> (B, 3): products of two streams, signed square roots, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(25, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.left(x)).flatten(2), F.relu(self.right(x)).flatten(2)
        z = (torch.bmm(a, b.transpose(1, 2)) / a.shape[-1]).flatten(1)
        return self.head(F.normalize(torch.sign(z) * torch.sqrt(z.abs() + 1e-5)))


IMAGE, SMALL = floats(3, 16, 16), floats(3, 32, 32)
FAMILIES = (
    Family(name="LeNet", kind=KIND, module=lenet, inputs=floats(1, 16, 16)),
    Family(name="AlexNet", kind=KIND, module=alexnet, inputs=SMALL),
    Family(name="MobileNet, dropout in place", kind=KIND, module=mobilenet, inputs=SMALL),
    Family(
        name="EfficientNet, dropout in place",
        kind=KIND,
        module=lambda: mobilenet(nn.SiLU, True),
        inputs=SMALL,
    ),
    Family(name="DenseNet", kind=KIND, module=DenseNet, inputs=IMAGE),
    Family(name="Inception", kind=KIND, module=Inception, inputs=IMAGE),
    Family(name="ShuffleNet", kind=KIND, module=ShuffleNet, inputs=IMAGE),
    Family(name="U-Net", kind=KIND, module=UNet, inputs=IMAGE, target=(1, 8, 8)),
    Family(
        name="feature pyramid", kind=KIND, module=FeaturePyramid, inputs=IMAGE, target=(1, 8, 8)
    ),
    Family(
        name="super-resolution",
        kind=KIND,
        module=super_resolution,
        inputs=floats(1, 8, 8),
        target=(0, 8, 8),
    ),
    Family(
        name="spatial transformer", kind=KIND, module=SpatialTransformer, inputs=floats(1, 16, 16)
    ),
    Family(name="3-D convolutions", kind=KIND, module=volumes, inputs=floats(1, 6, 12, 12)),
    Family(name="1-D convolutions", kind=KIND, module=signals, inputs=floats(2, 48)),
    Family(
        name="image and table",
        kind=KIND,
        module=ImageAndTable,
        inputs=in_order(IMAGE, floats(5)),
    ),
    Family(
        name="siamese",
        kind=KIND,
        module=Siamese,
        inputs=in_order(floats(1, 12, 12), floats(1, 12, 12)),
    ),
    Family(name="bilinear pooling", kind=KIND, module=BilinearPooling, inputs=IMAGE),
)
