"""The engine: images of any resolution in, embeddings in one metric space out."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from btnet_ext import cuda, models
from btnet_ext._native import core
from btnet_ext.bundle import Bundle
from btnet_ext.device_arrays import DeviceMemory
from btnet_ext.errors import BackendUnavailable, DemonstrationWeights, InvalidOption
from btnet_ext.images import as_pixel_list, is_array

_log = logging.getLogger(__name__)

_MOST_THREADS = 1024
_LARGEST_RESOLUTION = 2**31 - 1


class Engine:
    """Embeds face crops of any size, each through the branch network made for its resolution.

    Crops are expected to be aligned to the ArcFace five-point template, at whatever size they were cut.
    One engine may be used by several threads at once. It does not survive `fork`: make one in each process.

    Args:
        model: a model's name (see `btnet_ext.models`), or the path of a bundle: a `Path`, or text with a separator or
            ending in `.btnet`.
        device: "cpu"; "cuda" or "cuda:N", an NVIDIA GPU with TensorRT; or "auto", the first GPU where one can be used,
            else the CPU, which the log says.
        precision: "f32"; on the CPU also "bf16" (where it has it), on a GPU "f16"; "int8" where the bundle has it.
        hint: "throughput" makes the most of many images, "latency" has a single one back as soon as possible. On a GPU
            it makes no difference.
        threads: threads to compute with on the CPU; None: all cores that this process may use.
        resolutions: a subset of the bundle's, to select from; None: all.
        indicator: "max", "min" or "avg" of width and height; None: as the bundle says.
        rounding: "floor", "near" or "ceil" to a resolution; None: as the bundle says.
        color: "rgb" or "bgr", the channel order of arrays. (PIL images know theirs.)

    Raises:
        ModelNotFound: there is no model of that name.
        BundleError: the bundle is missing or damaged.
        InvalidOption: an option has a value that is not among those above.
        BackendUnavailable: the device or the precision cannot be had here.

    Warns:
        DemonstrationWeights: the model's weights are for demonstration only; once a process for each such model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        precision: str = "f32",
        hint: str = "throughput",
        threads: int | None = None,
        resolutions: Sequence[int] | None = None,
        indicator: str | None = None,
        rounding: str | None = None,
        color: str = "rgb",
    ) -> None:
        for option, text in {"device": device, "precision": precision, "hint": hint, "color": color}.items():
            if not isinstance(text, str):
                raise InvalidOption(f"{option} must be text, not {text!r}")
        for option, choice in {"indicator": indicator, "rounding": rounding}.items():
            if choice is not None and (not isinstance(choice, str) or not choice):
                raise InvalidOption(f"{option} must be text or None, not {choice!r}")
        if threads is not None and not _is_integer(threads, 1, _MOST_THREADS):
            raise InvalidOption(f"threads must be an integer from 1 to {_MOST_THREADS} or None, not {threads!r}")
        path = models.locate(model)
        choices: dict[str, Any] = {
            "resolutions": _resolution_list(resolutions),
            "indicator": indicator or "",
            "rounding": rounding or "",
            "color": color,
        }
        self._color = color
        self._precision = precision
        self._native: core.Engine  # or a pipeline, which has the same functions
        self._memory: DeviceMemory | None = None  # whose arrays are taken as images
        self._device = _best_device() if device == "auto" else device
        gpu = cuda.parse_device(self._device)
        if gpu is None:
            self._native = core.Engine(
                os.fspath(path),
                device=self._device,
                precision=precision,
                hint=hint,
                threads=threads or 0,
                **choices,
            )
            self._bundle = Bundle(self._native.bundle)
        else:
            if threads is not None:
                raise InvalidOption(f"threads is for device 'cpu', and device is {device!r}; got {threads!r}")
            self._device = f"cuda:{gpu}"
            self._bundle = Bundle.open(path)
            self._native = cuda.open_pipeline(self._bundle, gpu, precision=precision, hint=hint, **choices)
            self._memory = DeviceMemory(cuda.native(), gpu)
        training = self.bundle.metadata.get("training")
        if isinstance(training, dict) and training.get("demonstration") is True:
            _warn_of_demonstration(self.bundle.name, self.bundle.license)

    def embed(self, images: Any, *, flip: bool = False, normalize: bool = True) -> npt.NDArray[np.float32]:
        """Embed a batch of images of any sizes.

        Args:
            images: a list or tuple of H x W x 3 (or H x W, grey) uint8 arrays, PIL images or objects with the array or
                DLPack interface, mixed as you like; or one N x H x W x 3 array. Any strides; nothing is written to.
                On a GPU also arrays in its memory (CUDA array interface or DLPack), which are not copied. A PIL image
                is taken as its pixels lie: `PIL.ImageOps.exif_transpose` turns photos as their EXIF orientation says.
            flip: add the raw embedding of the mirror image to that of the image (flip-sum).
            normalize: scale each embedding to length 1.

        Returns:
            (N, dim) float32; row i belongs to images[i], whatever branch it went through.

        Raises:
            InvalidImage: names the index of the first image that cannot be embedded, before any work starts.
            InvalidOption: flip or normalize is not a bool.
            BtnetError: the device fails, or the engine was made before this process was forked.
        """
        _check_flags(flip=flip, normalize=normalize)
        return self._native.embed(
            as_pixel_list(images, color=self._color, memory=self._memory), flip=flip, normalize=normalize
        )

    def embed_stream(
        self, images: Iterable[Any], *, batch_size: int = 256, flip: bool = False, normalize: bool = True
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Embed any number of images in bounded memory.

        `images` is read only as far as the block that is asked for; an error in it comes out here, after the blocks of
        all full batches before it.

        Args:
            images: any iterable of what `embed` takes in a list.
            batch_size: images read, embedded and returned at a time.
            flip: as in `embed`.
            normalize: as in `embed`.

        Returns:
            An iterator of (batch_size, dim) float32 blocks, in order; the last may be shorter.

        Raises:
            InvalidOption: batch_size, flip, normalize or images is not what it should be; at once.
            InvalidImage, BtnetError: as `embed`, from the iterator; the index counts from the first image of all.
        """
        _check_flags(flip=flip, normalize=normalize)
        if not _is_integer(batch_size, 1, sys.maxsize):
            raise InvalidOption(f"batch_size must be a positive integer, not {batch_size!r}")
        if is_array(images):
            pixels = as_pixel_list(images, color=self._color, memory=self._memory)
            blocks = (pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size))
            return (self._native.embed(block, flip=flip, normalize=normalize) for block in blocks)
        if isinstance(images, (str, bytes)) or not isinstance(images, Iterable):
            raise InvalidOption(f"images must be an iterable of images, not a {type(images).__name__}")
        return self._blocks(iter(images), batch_size, flip, normalize)

    def _blocks(
        self, images: Iterator[Any], batch_size: int, flip: bool, normalize: bool
    ) -> Iterator[npt.NDArray[np.float32]]:
        first = 0
        while block := list(islice(images, batch_size)):
            pixels = as_pixel_list(block, color=self._color, memory=self._memory, first=first)
            yield self._native.embed(pixels, flip=flip, normalize=normalize)
            first += len(block)

    def select(self, images: Any) -> npt.NDArray[np.int32]:
        """(N,) int32: the resolution of the branch that each image goes to (He et al., BMVC 2023, Fig. 8).

        Raises InvalidImage as `embed` does.
        """
        return self._native.select(as_pixel_list(images, color=self._color, memory=self._memory))

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions that this engine selects from, ascending, in pixels."""
        return tuple(self._native.resolutions)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._native.dim

    @property
    def device(self) -> str:
        """The device that runs the networks."""
        return self._device

    @property
    def precision(self) -> str:
        """The precision that the networks run in."""
        return self._precision

    @property
    def bundle(self) -> Bundle:
        """The bundle that this engine runs."""
        return self._bundle

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Engine cannot be pickled or copied: make one in each process, where its threads are")

    def __repr__(self) -> str:
        return (
            f"Engine({self.bundle.name!r}, device={self.device!r}, precision={self.precision!r}, "
            f"resolutions={self.resolutions}, dim={self.dim})"
        )


@cache  # once a process; not where warnings are errors, since what raises is not remembered
def _warn_of_demonstration(name: str, licence: str) -> None:
    message = (
        f"the weights of {name!r} are for demonstration only, to try btnet and not to decide anything about people; "
        f"their licence is {licence!r}"
    )
    warnings.warn(message, DemonstrationWeights, stacklevel=3)


def _best_device() -> str:
    try:
        cuda.find_gpu(0)
    except BackendUnavailable as error:
        _log.info("device 'auto': using 'cpu', since %s", error)
        return "cpu"
    return "cuda:0"


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidOption(f"{name} must be True or False, not {value!r:.60}")


def _is_integer(value: object, lowest: int, highest: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and lowest <= int(value) <= highest


def _resolution_list(resolutions: Sequence[int] | None) -> list[int]:
    if resolutions is None:
        return []
    chosen = list(resolutions) if isinstance(resolutions, Iterable) else []
    if not chosen or not all(_is_integer(resolution, 1, _LARGEST_RESOLUTION) for resolution in chosen):
        raise InvalidOption(f"resolutions must be a list of positive integers, not empty, or None; got {resolutions!r}")
    return [int(resolution) for resolution in chosen]
