"""Whether neurons saw the images that their network was given, or parts of them."""

from __future__ import annotations

from collections.abc import Sequence

from isofire.errors import ModelError


def require_images(given: Sequence[tuple[int, ...]], images: int, steps: int) -> None:
    """Refuse more images than the model was given, so that parts of them are not taken for images.

    Parameters
    ----------
    given
        Shapes of all tensors that it was given.
    images, steps
        N and T of its neurons.

    Raises
    ------
    ModelError
        If the neurons saw more.
    """
    shapes = [shape for shape in given if shape]
    # images stand in what has most axes; several such may be images of their own, or become one batch
    largest = [shape for shape in shapes if len(shape) == max(map(len, shapes))]
    rows = sum(shape[0] for shape in largest if shape[1:] == largest[0][1:])
    # fewer than rows, of [N * T, ...] or of events, are no parts
    fits = images <= max(rows, 1) or any(images == shape[0] or _holds(shape, images, steps) for shape in largest)
    if largest and not fits:
        shown = " and ".join(str(list(shape)) for shape in given)
        raise ModelError(
            f"neurons must see [T, N, ...] with the batch's N: the model was given {shown}, its neurons saw "
            f"N = {images} and T = {steps}; where it folds parts of an image into the batch (patches, "
            "windows, views), or its steps, give those an axis of their own before the neurons, [T, N, parts, ...]"
        )


def _holds(shape: tuple[int, ...], images: int, steps: int) -> bool:
    """Whether an input has so many images on an axis behind the first.

    Frames [T, N, ...] have, and not one image of so many parts, [1, parts, ...]. Parts of several images are a multiple
    of the first axis, and may be as many as there are places on a later one.
    """
    if len(shape) < 2 or not shape[0]:
        return False
    return (images == shape[1] and (shape[0] > 1 or steps == 1)) or (images % shape[0] > 0 and images in shape[2:])
