"""What callers pass as images: every kind that is taken gives the same embeddings, everything else an error of ours."""

from collections import UserList
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from btnet_ext import Engine, InvalidImage
from reference import Pixels, faces

SEED = 31


@pytest.fixture(scope="module")
def engine(small_bundle: Path) -> Engine:
    return Engine(small_bundle)


@pytest.fixture(scope="module")
def image() -> Pixels:
    return faces([(26, 19)], SEED)[0]


def same(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


class DLPackOnly:
    """Has the DLPack interface and no other."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class ArrayInterfaceOnly:
    def __init__(self, array: Pixels) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


class ArrayMethodOnly:
    def __init__(self, array: Pixels) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        return self._array


def test_every_kind_of_object(engine: Engine, image: Pixels) -> None:
    expected = engine.embed([image])
    kinds: list[Any] = [
        Image.fromarray(image),
        torch.from_numpy(image.copy()),
        DLPackOnly(torch.from_numpy(image.copy())),
        ArrayInterfaceOnly(image),
        ArrayMethodOnly(image),
        image.view(np.recarray),
    ]
    same(engine.embed(kinds), np.repeat(expected, len(kinds), axis=0))
    same(engine.embed(tuple(kinds)), np.repeat(expected, len(kinds), axis=0))


def test_views(engine: Engine, image: Pixels) -> None:
    expected = engine.embed([image])
    padded = np.zeros((60, 50, 5), np.uint8)
    padded[3:55:2, 5:43:2, 1:4] = image
    planar = np.ascontiguousarray(image.transpose(2, 0, 1))
    read_only = image.copy()
    read_only.flags.writeable = False
    views = [
        padded[3:55:2, 5:43:2, 1:4],
        image[::-1].copy()[::-1],
        np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        planar.transpose(1, 2, 0),
        np.asfortranarray(image),
        read_only,
        np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    ]
    before = [view.copy() for view in views]
    same(engine.embed(views), np.repeat(expected, len(views), axis=0))
    for view, copy in zip(views, before, strict=True):
        np.testing.assert_array_equal(view, copy)


def test_broadcast_view(engine: Engine) -> None:
    row = faces([(1, 20)], SEED)[0]
    same(engine.embed([np.broadcast_to(row, (30, 20, 3))]), engine.embed([np.repeat(row, 30, axis=0)]))


def test_strided_torch_tensor(engine: Engine, image: Pixels) -> None:
    chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    same(engine.embed([chw.permute(1, 2, 0)]), engine.embed([image]))


def test_one_array_of_many(engine: Engine) -> None:
    images = faces([(20, 30)] * 7, SEED)
    stacked = np.stack(images)
    expected = engine.embed(images)
    same(engine.embed(stacked), expected)
    same(engine.embed(stacked[::-1]), expected[::-1])
    same(engine.embed(torch.from_numpy(stacked)), expected)
    same(engine.embed(DLPackOnly(torch.from_numpy(stacked))), expected)


def test_grey_is_three_equal_channels(engine: Engine, image: Pixels) -> None:
    grey = np.ascontiguousarray(image[..., 0])
    expected = engine.embed([np.repeat(grey[..., None], 3, axis=2)])
    for form in (grey, grey[..., None], image[..., 0], Image.fromarray(grey), torch.from_numpy(grey)):
        same(engine.embed([form]), expected)


def test_bgr(small_bundle: Path, engine: Engine, image: Pixels) -> None:
    bgr = Engine(small_bundle, color="bgr")
    expected = engine.embed([image])
    same(bgr.embed([image[..., ::-1]]), expected)
    same(bgr.embed([np.ascontiguousarray(image[..., ::-1])]), expected)
    same(bgr.embed([Image.fromarray(image)]), expected)  # a PIL image knows its order
    same(bgr.embed([image[..., 0]]), engine.embed([image[..., 0]]))  # grey has none
    assert np.abs(bgr.embed([image]) - expected).max() > 1e-3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_pil_modes(engine: Engine, image: Pixels, mode: str) -> None:
    picture = Image.fromarray(image)
    # Not every mode can be had from RGB.
    converted = (
        Image.new(mode, (19, 26), (90, 140, 120))
        if mode == "LAB"
        else picture.convert("P").convert(mode)
        if mode == "PA"
        else picture.convert(mode)
    )
    assert converted.mode == mode
    same(engine.embed([converted]), engine.embed([np.asarray(converted.convert("RGB"))]))


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
def test_pil_modes_that_are_refused(engine: Engine, mode: str) -> None:
    with pytest.raises(InvalidImage, match=r"images\[1\]") as caught:
        engine.embed([np.zeros((9, 9, 3), np.uint8), Image.new(mode, (9, 9))])
    assert "\n" not in str(caught.value)


def test_pil_image_that_is_closed(engine: Engine, image: Pixels, tmp_path: Path) -> None:
    Image.fromarray(image).save(tmp_path / "face.png")
    with Image.open(tmp_path / "face.png") as picture:
        pass
    with pytest.raises(InvalidImage, match=r"images\[0\] cannot be decoded: ."):
        engine.embed([picture])


def test_pil_image_that_is_cut_short(engine: Engine, image: Pixels, tmp_path: Path) -> None:
    Image.fromarray(np.tile(image, (8, 8, 1))).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(InvalidImage, match=r"images\[1\]"):
        engine.embed([image, cut])


def test_no_images(engine: Engine) -> None:
    forms: tuple[Any, ...] = ([], (), np.zeros((0, 20, 20, 3), np.uint8))
    for nothing in forms:
        embeddings = engine.embed(nothing)
        assert embeddings.shape == (0, 512)
        assert embeddings.dtype == np.float32
        assert engine.select(nothing).shape == (0,)


class NoDevice:
    """Has half of the DLPack interface."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("not today")


class LyingArray:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return "no array"


class OnTheGpu:
    __cuda_array_interface__ = {"shape": (9, 9, 3), "typestr": "|u1", "data": (0, False), "version": 3}  # noqa: RUF012


BAD_IMAGES: dict[str, Any] = {
    "no rows": np.zeros((0, 9, 3), np.uint8),
    "no columns": np.zeros((9, 0, 3), np.uint8),
    "no channels": np.zeros((9, 9, 0), np.uint8),
    "nothing": np.zeros(0, np.uint8),
    "0-D": np.uint8(7),
    "0-D array": np.array(7, np.uint8),
    "1-D": np.zeros(300, np.uint8),
    "4-D": np.zeros((1, 9, 9, 3), np.uint8),
    "2 channels": np.zeros((9, 9, 2), np.uint8),
    "4 channels": np.zeros((9, 9, 4), np.uint8),
    "channels first": np.zeros((3, 9, 9), np.uint8),
    "float": np.zeros((9, 9, 3), np.float32),
    "NaN": np.full((9, 9, 3), np.nan),
    "int8": np.zeros((9, 9, 3), np.int8),
    "int64": np.zeros((9, 9, 3), np.int64),
    "bool": np.zeros((9, 9, 3), bool),
    "object": np.zeros((9, 9, 3), object),
    "text array": np.full((9, 9, 3), "x"),
    "record array": np.zeros((9, 9), [("r", "u1"), ("g", "u1"), ("b", "u1")]),
    "None": None,
    "number": 7,
    "text": "face.png",
    "path": Path("face.png"),
    "bytes": b"\xff\xd8",
    "nested lists": [[[0, 0, 0]]],
    "class": np.ndarray,
    "float tensor": torch.zeros(9, 9, 3),
    "tensor with gradient": torch.zeros(9, 9, 3, requires_grad=True),
    "sparse tensor": torch.zeros(9, 9, 3, dtype=torch.uint8).to_sparse(),
    "meta tensor": torch.zeros(9, 9, 3, dtype=torch.uint8, device="meta"),
    "empty PIL image": Image.new("RGB", (0, 9)),
    "half of DLPack": NoDevice(),
    "lying array": LyingArray(),
    "masked array": np.ma.masked_less(np.zeros((9, 9, 3), np.uint8), 1),
    "too long": np.broadcast_to(np.uint8(7), (1, 2**24 + 1, 3)),
    "far too long": np.broadcast_to(np.uint8(7), (2**31, 1, 3)),
    "GPU memory": OnTheGpu(),
}


@pytest.mark.filterwarnings("ignore:Sparse.*:UserWarning")
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_named(engine: Engine, kind: str) -> None:
    good = np.zeros((9, 9, 3), np.uint8)
    for read in (engine.embed, engine.select):
        with pytest.raises(InvalidImage, match=r"images\[2\]") as caught:
            read([good, good, BAD_IMAGES[kind], good])
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidImage, match=r"images\[0\]"):
        next(engine.embed_stream([BAD_IMAGES[kind]]))


def test_one_bad_image_among_10000(engine: Engine) -> None:
    images: list[Any] = [np.zeros((200, 200, 3), np.uint8)] * 10_000
    images[7777] = np.zeros((200, 200, 3), np.float64)
    with pytest.raises(InvalidImage, match=r"images\[7777\].*float64.*uint8"):
        engine.embed(images)


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        ("faces/", "list"),
        (b"faces", "list"),
        (Path("faces"), "list"),
        (None, "list"),
        (7, "list"),
        ({"a": 1}, "list"),
        ({1, 2}, "list"),
        (UserList(), "list"),
        (Image.new("RGB", (9, 9)), "list"),
        (np.zeros((9, 9, 3), np.uint8), r"\[image\]"),
        (np.zeros((9, 9), np.uint8), r"\[image\]"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), r"\[image\]"),
        (np.zeros(9, np.uint8), "N x H x W x 3"),
        (np.zeros((2, 2, 9, 9, 3), np.uint8), "N x H x W x 3"),
        (np.array(None), "N x H x W x 3"),
        (OnTheGpu(), "GPU"),
    ],
)
def test_what_is_no_batch(engine: Engine, images: Any, hint: str) -> None:
    for read in (engine.embed, engine.select):
        with pytest.raises(InvalidImage, match=f"images.*{hint}") as caught:
            read(images)
        assert "\n" not in str(caught.value)


def test_a_generator_is_told_where_to_go(engine: Engine) -> None:
    with pytest.raises(InvalidImage, match=r"generator.*embed_stream"):
        engine.embed(image for image in [np.zeros((9, 9, 3), np.uint8)])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_one_array_with_other_channels(engine: Engine, channels: int) -> None:
    stacked = np.zeros((3, 9, 9, channels), np.uint8)
    if channels == 1:
        assert engine.embed(stacked).shape == (3, 512)
    else:
        with pytest.raises(InvalidImage, match=r"images\[0\]"):
            engine.embed(stacked)
