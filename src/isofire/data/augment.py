"""Random crops, flips and cut-outs for a whole batch at once, where the batch lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from isofire.errors import DataError, SpecError


@final
@dataclass(frozen=True)
class Augment:
    """Shift, mirror and cut images at random, each image on its own.

    Parameters
    ----------
    pad
        Crop the image at random out of itself padded by this many pixels on every side: a shift by -pad..pad pixels
        along each axis (He et al. 2016, section 4.2). 0: none.
    flip
        Mirror left and right with probability 1/2.
    cutout
        Side in pixels of a square set to zero, around a random pixel, so that it may hang over the border (DeVries
        and Taylor 2017, arXiv:1708.04552). For it to be grey rather than black, cut normalized images. 0: none.
    border
        What the padding shows: "zeros", or "reflect" for the mirror image without the edge pixel.

    Raises
    ------
    SpecError
        If `pad` or `cutout` is below 0, or `border` is unknown.

    Examples
    --------
    >>> augment = Augment(pad=1)
    >>> images = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    >>> tuple(augment(images, torch.Generator().manual_seed(0)).shape)
    (1, 1, 3, 3)
    """

    pad: int = 4
    flip: bool = True
    cutout: int = 0
    border: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        for name, value in (("pad", self.pad), ("cutout", self.cutout)):
            if value < 0:
                raise SpecError(f"{name} must be 0 pixels or more, got {value}")
        if self.border not in ("zeros", "reflect"):
            raise SpecError(f"border must be 'zeros' or 'reflect', got {self.border!r}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return an augmented copy of a batch.

        Parameters
        ----------
        images
            [N, C, H, W], any number type, contiguous or channels_last.
        generator
            The only source of randomness, on the images' device. The draws depend on N, H, W and the settings alone.

        Returns
        -------
        Tensor
            Same shape, type, device and memory layout.

        Raises
        ------
        DataError
            If the batch is not four-dimensional, or too small to reflect `pad` pixels.
        SpecError
            If the generator is on another device.
        """
        if images.ndim != 4:
            raise DataError(f"images must be of shape [N, C, H, W], got {list(images.shape)}")
        if generator.device.type != images.device.type:
            raise SpecError(f"the generator must be on {images.device}, where the images are, got {generator.device}")
        count, _, height, width = images.shape
        if self.border == "reflect" and self.pad >= min(height, width):
            raise DataError(f"reflect needs images larger than pad={self.pad}, got {height}x{width}; lower pad")
        rows, columns = self._source(count, height, width, generator)
        blank = _outside(rows, height)[:, :, None] | _outside(columns, width)[:, None, :]
        if self.cutout:
            blank = blank | self._square(count, height, width, generator)
        source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        return _pick(images, source, blank)

    def _source(self, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw from which row [N, H] and column [N, W] each pixel comes; outside the image means padding."""
        device = generator.device
        shift = torch.randint(-self.pad, self.pad + 1, (2, count, 1), generator=generator, device=device)
        rows = torch.arange(height, device=device) + shift[0]
        columns = (torch.arange(width, device=device) + shift[1]).expand(count, width)
        if self.flip:
            mirrored = torch.randint(0, 2, (count, 1), generator=generator, device=device).bool()
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.border == "reflect":
            return _reflect(rows, height), _reflect(columns, width)
        return rows, columns

    def _square(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw the squares to blank, bool [N, H, W]."""
        device = generator.device
        inside = []
        for size in (height, width):
            start = torch.randint(0, size, (count, 1), generator=generator, device=device) - self.cutout // 2
            axis = torch.arange(size, device=device)
            inside.append((axis >= start) & (axis < start + self.cutout))
        return inside[0][:, :, None] & inside[1][:, None, :]


def _outside(index: Tensor, size: int) -> Tensor:
    return (index < 0) | (index >= size)


def _reflect(index: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _pick(images: Tensor, source: Tensor, blank: Tensor) -> Tensor:
    """Gather pixels by flat position [N, H, W] and set the blank ones to zero, in the images' own layout."""
    count, channels, height, width = images.shape
    area = height * width
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        flat = images.permute(0, 2, 3, 1).reshape(count, area, channels)
        picked = flat.gather(1, source.view(count, area, 1).expand(count, area, channels))
        picked.masked_fill_(blank.view(count, area, 1), 0)
        return picked.view(count, height, width, channels).permute(0, 3, 1, 2)
    flat = images.reshape(count, channels, area)
    picked = flat.gather(2, source.view(count, 1, area).expand(count, channels, area))
    picked.masked_fill_(blank.view(count, 1, area), 0)
    return picked.view(count, channels, height, width)
