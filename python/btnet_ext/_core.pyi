"""
The compiled part of btnet_ext. Private: use btnet_ext.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import pathlib
import typing

__all__: list[str] = [
    "Bundle",
    "Engine",
    "LONGEST_SIDE",
    "SignalStack",
    "available_cores",
    "cache_folder",
    "degrade",
    "model_folder",
    "resize",
    "resize_normalize",
    "simd",
]

class SignalStack:
    """
    Gives the thread its signal stack back at the end of a `with`.
    """
    def __enter__(self) -> None: ...
    def __exit__(self, arg0: typing.Any, arg1: typing.Any, arg2: typing.Any) -> None: ...
    def __init__(self) -> None: ...

class Bundle:
    @staticmethod
    def open(path: os.PathLike[str] | str | bytes) -> Bundle: ...
    def verify(self) -> None: ...
    @property
    def arch(self) -> str: ...
    @property
    def canonical(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def license(self) -> str: ...
    @property
    def metadata(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def precisions(self) -> list[str]: ...
    @property
    def resolutions(self) -> list[int]: ...
    @property
    def width(self) -> float: ...

class Engine:
    def __init__(
        self,
        bundle: os.PathLike[str] | str | bytes,
        *,
        device: str,
        precision: str,
        hint: str,
        threads: typing.SupportsInt | typing.SupportsIndex,
        resolutions: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        indicator: str,
        rounding: str,
        color: str,
    ) -> None: ...
    def embed(
        self, images: collections.abc.Sequence[numpy.ndarray], *, flip: bool, normalize: bool
    ) -> numpy.typing.NDArray[numpy.float32]: ...
    def select(self, images: collections.abc.Sequence[numpy.ndarray]) -> numpy.typing.NDArray[numpy.int32]: ...
    @property
    def bundle(self) -> Bundle: ...
    @property
    def dim(self) -> int: ...
    @property
    def resolutions(self) -> list[int]: ...

def available_cores() -> int:
    """
    Threads of computation that this process can keep busy.
    """

def cache_folder() -> pathlib.Path:
    """
    Where compiled networks are: $BTNET_CACHE.
    """

def degrade(
    image: numpy.ndarray,
    resolution: typing.SupportsInt | typing.SupportsIndex,
    canonical: typing.SupportsInt | typing.SupportsIndex,
    filter: str,
) -> numpy.typing.NDArray[numpy.uint8]: ...
def model_folder() -> pathlib.Path:
    """
    Where a user's bundles are: $BTNET_HOME.
    """

def resize(
    image: numpy.ndarray,
    height: typing.SupportsInt | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    filter: str,
) -> numpy.typing.NDArray[numpy.uint8]: ...
def resize_normalize(
    image: numpy.ndarray,
    height: typing.SupportsInt | typing.SupportsIndex,
    width: typing.SupportsInt | typing.SupportsIndex,
    mean: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"],
    std: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"],
    swap_red_blue: bool,
    mirror: bool,
    filter: str,
) -> numpy.typing.NDArray[numpy.float32]: ...
def simd() -> str:
    """
    The code path of the resampler in this process: plain, avx2 or avx512 ($BTNET_SIMD).
    """

LONGEST_SIDE: int = 16777216
__version__: str = "0.1.0"
