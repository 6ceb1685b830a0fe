"""Models to measure: a bundle of this project, or any other face model in ONNX, as a function of images."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import PIL

from btnet_eval.base import Embed, Image, Rows
from btnet_eval.onnx_network import CANONICAL, FaceNetwork, Preprocessing, is_onnx
from btnet_ext import Bundle, Engine, InvalidImage, InvalidOption, __version__, cuda, degrade, resize
from btnet_ext.compare import HALF_OCTAVES, ladder

_WHAT_EMBEDS = ("canonical", "resolutions", "input", "selection", "graphs", "files")  # of a bundle's model.json


@dataclass(frozen=True)
class Model:
    """A model to measure.

    name: for people. embed: images of any sizes to embeddings. digest: names the weights and all that changes an
    embedding; two models with one digest are the same. resolutions: of its networks, ascending, in pixels; a model
    of one network has one. engine: what embeds, if it is a bundle. flip: whether `embed` adds the embedding of the
    mirror image.
    """

    name: str
    embed: Embed
    digest: str
    resolutions: tuple[int, ...]
    engine: Engine | None = None
    flip: bool = False

    @property
    def ladder(self) -> tuple[int, ...]:
        """The sizes, ascending, in pixels, for which thresholds are measured: a bundle's own, or half octaves."""
        return HALF_OCTAVES if self.engine is None else ladder(self.engine)

    def present(self, image: Image, resolution: int) -> Image:
        """What the model is shown of an image that has no more detail than resolution x resolution pixels.

        The image at that size, for a network of that resolution; else the image degraded to it and up again to 112 px,
        as models of one network are measured at low resolutions (Knoche et al. 2021, Eq. 1).
        """
        if resolution in self.resolutions:
            filter_ = "bicubic" if self.engine is None else self.engine.bundle.metadata["input"]["filter"]
            return resize(image, (resolution, resolution), filter=filter_)
        return degrade(image, resolution, canonical=CANONICAL)


def open_model(
    model: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str = "f32",
    flip: bool = True,
    normalize: bool = True,
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Open a model to measure.

    An ONNX model has one input (1 or N, 3, 112, 112) and one output (N, dim). Images of other sizes are resized to
    112 px. It runs on the CPU in f32, one call at a time. An embedding of length zero, or not finite, comes out as it
    is: `EmbeddingCache` refuses it, and names the image.

    Args:
        model: a bundle's name or path, as `btnet_ext.Engine` takes it; or the path of an ONNX model, ending in .onnx.
            The name of an ONNX model is that of its file.
        device: as for `btnet_ext.Engine`.
        precision: as for `btnet_ext.Engine`.
        flip: embed the mirror image, too, and add both embeddings.
        normalize: give embeddings of length 1; otherwise as the network has them.
        preprocessing: of an ONNX model; None: `Preprocessing()`. A bundle says itself what it is given.

    Raises:
        DataError: an ONNX model that is damaged, or is no face model for 112 px.
        BtnetError: what `btnet_ext.Engine` raises; `InvalidOption`, also, for an option that does not fit the model.
        OSError: from the file system.
    """
    if is_onnx(model):
        if device not in ("cpu", "auto"):
            raise InvalidOption(f"device must be 'cpu' for an ONNX model, not {device!r}")
        if precision != "f32":
            raise InvalidOption(f"precision must be 'f32' for an ONNX model, not {precision!r}")
        return _open_onnx(Path(model), flip, normalize, preprocessing or Preprocessing())
    if preprocessing is not None:
        raise InvalidOption(f"preprocessing is for an ONNX model, and {os.fspath(model)} is a bundle")
    engine = Engine(model, device=device, precision=precision)

    def embed(images: Sequence[Image]) -> Rows:
        return engine.embed(images, flip=flip, normalize=normalize)

    options = {"flip": flip, "normalize": normalize, "device": engine.device, "precision": precision}
    digest = _digest(_digest_of_bundle(engine.bundle), _runtime(engine.device), **options)
    return Model(engine.bundle.name, embed, digest, engine.resolutions, engine, flip)


def _runtime(device: str) -> str:
    """What runs networks on a device, with its version."""
    gpu = cuda.parse_device(device)
    return f"openvino {ov.__version__}" if gpu is None else cuda.describe_runtime(gpu)


def _digest(weights: str, runtime: str, **options: object) -> str:
    """Of the weights, of how they are run, and of the versions of what runs them and of what decodes images."""
    versions = f"btnet-ext {__version__}, {runtime}, pillow {PIL.__version__}"
    return hashlib.sha256(f"{weights} {options} {versions}".encode()).hexdigest()


def _digest_of_bundle(bundle: Bundle) -> str:
    """SHA-256 of what embeddings depend on, which the name, the thresholds and the licence are not."""
    parts = {name: bundle.metadata[name] for name in _WHAT_EMBEDS}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _open_onnx(path: Path, flip: bool, normalize: bool, preprocessing: Preprocessing) -> Model:
    network = FaceNetwork(path, preprocessing)
    digest = _digest(network.digest, _runtime("cpu"), flip=flip, normalize=normalize)

    def embed(images: Sequence[Image]) -> Rows:
        return _embed(network, images, flip, normalize)

    return Model(path.stem, embed, digest, (CANONICAL,), flip=flip)


def _embed(network: FaceNetwork, images: Sequence[Image], flip: bool, normalize: bool) -> Rows:
    if isinstance(images, np.ndarray) and images.ndim != 4:
        hint = "; for a single image pass a list, [image]"
        raise InvalidImage(f"images is one array of shape {images.shape}, expected N x H x W x 3{hint}")

    def views() -> Iterator[Image]:
        for image in images:
            pixels = resize(image, (CANONICAL, CANONICAL))
            yield pixels
            if flip:
                yield pixels[:, ::-1]

    found = network.embed(views()).astype(np.float64)
    sums = found.reshape(len(images), 1 + flip, network.dim).sum(axis=1)
    if normalize:
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.where(np.isfinite(lengths) & (lengths > 0), lengths, 1)
    rows: Rows = sums.astype(np.float32)
    return rows
