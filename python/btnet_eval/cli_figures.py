"""Subcommands of btnet-eval that draw: upsampling, features, projection."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btnet_eval.cli_session import (
    Channels,
    Mean,
    Out,
    Resolutions,
    Std,
    Strict,
    check_models,
    measuring,
    open_run,
    parse_preprocessing,
    parse_resolutions,
)
from btnet_ext.commands import HALF, Color

if TYPE_CHECKING:
    from btnet_eval.session import Session

Faces = Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder or zip of aligned faces.")]


def upsampling(
    images: Faces, out: Out, resolutions: Resolutions = "112,80,56,40,28,20,14,10,7", strict: Strict = False
) -> None:
    """Bound the error of interpolation that up-sampling makes, against the resolution: the paper's Fig. 1."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.upsampling import write_upsampling

    with open_run(out, strict) as run, open_images(images) as faces:
        typer.echo(write_upsampling(run, faces, parse_resolutions(resolutions)))


@measuring
def projection(
    session: "Session",
    images: Faces,
    resolutions: Resolutions = "112,28,14,7",
    most: Annotated[int, typer.Option(min=1, help="Images to draw, evenly spread over all.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of t-SNE.")] = 0,
) -> Path:
    """Draw where embeddings lie at each resolution, by PCA and t-SNE."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.projection import write_projection

    with open_images(images) as faces:
        return write_projection(session, faces, parse_resolutions(resolutions), most=most, seed=seed)


def features(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="An aligned face.")],
    model: Annotated[
        list[str], typer.Option("--model", "-m", metavar="MODEL[@R]", help="A bundle, @28: its branch; or FILE.onnx.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the report.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,NAME",
            help="To show, of all models; or once for each of them. Without it, the names of all layers are printed.",
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, max=112, help="Reduce the image to this many pixels first.")
    ] = None,
    mean: Mean = HALF,
    std: Std = HALF,
    color: Channels = Color.rgb,
) -> None:
    """Draw feature maps of chosen layers, of several models side by side."""
    from btnet_eval.feature_maps import open_network, write_feature_maps
    from btnet_eval.onnx_network import is_onnx
    from btnet_ext.sources import Source, decode

    given = parse_preprocessing(mean, std, color)
    networks = []
    branches = [text.partition("@") for text in model]
    for text, (_, _, side) in zip(model, branches, strict=True):
        if side and not side.isdecimal():
            raise typer.BadParameter(f"--model must be MODEL or MODEL@R, such as res50@28, got {text!r}")
    check_models([name for name, _, _ in branches], given)
    for name, _, side in branches:
        preprocessing = given if is_onnx(name) else None
        networks.append(open_network(name, resolution=int(side) if side else None, preprocessing=preprocessing))
    if not layers:
        for network in networks:
            typer.echo(network.name)
            for found in network.layers.values():
                typer.echo(f"  {found.name}  {found.kind} {' x '.join(map(str, found.shape))}")
        return
    if out is None:
        raise typer.BadParameter("--out is missing: where is the report to go?")
    if len(layers) not in (1, len(networks)):
        raise typer.BadParameter(f"--layers must be given once, or once for each --model, not {len(layers)} times")
    chosen = [names.split(",") for names in layers] * (len(networks) // len(layers))
    face = decode(Source(str(image), image.read_bytes))
    with open_run(out, strict=True) as run:
        pairs = list(zip(networks, chosen, strict=True))
        typer.echo(write_feature_maps(run, pairs, face, str(image), resolution))
