"""The networks of classifiers: fully connected ones and the CaloChallenge's 3-D ResNet-18."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.classifiers.scaling import Affine
    from calo_train.geometry import Geometry

_CHANNELS = (32, 64, 64, 128)


def build_network(
    num_inputs: int,
    protocol: Protocol,
    geometry: Geometry,
    *,
    num_outputs: int | None = None,
    scaling: Affine | None = None,
) -> nn.Module:
    """Build a classifier of inputs (n, num_inputs); `num_outputs` replaces the protocol's."""
    if scaling is not None:
        inner = build_network(scaling.num_outputs, protocol, geometry, num_outputs=num_outputs)
        return nn.Sequential(scaling, inner)
    wanted = protocol.num_outputs if num_outputs is None else num_outputs
    if protocol.network == "resnet":
        return ResNet3D((geometry.num_layers, *geometry.layer_shapes[0]), wanted)
    return dense_network(num_inputs, protocol.hidden, slope=protocol.slope, num_outputs=wanted)


def dense_network(
    num_inputs: int, hidden: tuple[int, ...], *, slope: float, num_outputs: int
) -> nn.Sequential:
    """Build linear layers with LeakyReLU after each but the last."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.LeakyReLU(slope)]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))


class ResNet3D(nn.Module):
    """A 3-D ResNet-18 of low inputs: log10 of the incident energy, then voxels of `shape`.

    Stem 7x7x7 of stride 2, max pooling, four stages of two blocks, average pooling, then a linear
    map of 128 features and the batch-normalised energy (2410.21611).
    """

    def __init__(self, shape: tuple[int, int, int], num_outputs: int) -> None:
        super().__init__()
        self._shape = shape
        widths = (_CHANNELS[0], *_CHANNELS)
        self.stem = nn.Sequential(
            nn.Conv3d(1, widths[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(),
            nn.MaxPool3d(3, stride=2, padding=1),
        )
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Block(before, width, 1 if index == 0 else 2), _Block(width, width))
                for index, (before, width) in enumerate(zip(widths, _CHANNELS, strict=False))
            )
        )
        self.energy_norm = nn.BatchNorm1d(1)
        self.head = nn.Linear(_CHANNELS[-1] + 1, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give outputs (n, outputs) of inputs (n, 1 + voxels)."""
        voxels = inputs[:, 1:].reshape(-1, 1, *self._shape)
        features = self.stages(self.stem(voxels)).mean(dim=(2, 3, 4))
        outputs: Tensor = self.head(torch.cat([features, self.energy_norm(inputs[:, :1])], dim=1))
        return outputs


class _Block(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv3d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv3d(before, width, 1, stride=stride, bias=False), nn.BatchNorm3d(width)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.relu(self.path(inputs) + self.shortcut(inputs))
        return outputs
