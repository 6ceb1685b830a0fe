"""Subcommands of btnet-eval that search people, or measure templates: own, identify, templates, survface and others."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btnet_eval.cli_session import Resolutions, file_digest, measuring, parse_resolutions

if TYPE_CHECKING:
    from btnet_eval.session import Session

measuring_lengths = functools.partial(measuring, normalize=False)
"""For programs in which longer embeddings count more where means are taken."""

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder or zip, with a folder for each person.")]
Release = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The folder of the release, or a zip of it (.mat files then with --lists)."),
]
Collected = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder that the images were collected in, or a zip of it.")
]
Lists = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        exists=True,
        file_okay=False,
        help="Folder of its .mat files, if not in FOLDER or FOLDER is a zip.",
    ),
]


@measuring
def own(
    session: "Session",
    folder: Folder,
    sizes: Annotated[
        str | None, typer.Option(metavar="S,S", help="In pixels. [default: 112,80,56,40,28,20,14,10,7]")
    ] = None,
    far: Annotated[float, typer.Option(help="False-accept rate of the thresholds.")] = 1e-3,
    rejects: Annotated[
        float, typer.Option(min=0, max=1, help="How many genuine pairs may be rejected, as a part of them.")
    ] = 0.05,
    pairs: Annotated[int, typer.Option(min=1, help="At most, of each kind.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of pairs.")] = 0,
) -> Path:
    """Measure how small faces of your own may be before they are no longer recognised."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.own import SIZES, Options, summary, write_own
    from btnet_eval.report import read_result

    chosen = SIZES if sizes is None else parse_resolutions(sizes, "--sizes")
    options = Options(sizes=chosen, far=far, rejects=rejects, pairs=pairs, seed=seed)
    with open_images(folder) as images:
        page = write_own(session, images, options)
    typer.echo(summary(read_result(page.with_suffix(".json"))))
    return page


@measuring
def identify(
    session: "Session",
    folder: Folder,
    resolutions: Resolutions = "112,28,14,7",
    gallery_images: Annotated[int, typer.Option(min=1, help="The first images of a person, which are enrolled.")] = 3,
    unmated: Annotated[float, typer.Option(min=0, help="The part of the people who are not enrolled.")] = 1 / 3,
) -> Path:
    """Search a gallery of people for faces, of whom some are not in it: top-k, and TPIR at FPIR."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.identify import split_gallery, write_identification
    from btnet_eval.session import image_sizes

    sides = parse_resolutions(resolutions)
    with open_images(folder) as images:
        names = list(image_sizes(images.names(), images, session.problems, session.progress))
        people = split_gallery(names, session.problems, gallery_images=gallery_images, unmated=unmated)
        return write_identification(session, images, people, sides)


@measuring_lengths
def templates(
    session: "Session",
    meta: Annotated[
        Path,
        typer.Argument(metavar="META", exists=True, file_okay=False, help="Folder of the lists, ijbc_... or ijbb_..."),
    ],
    images: Annotated[Path, typer.Option("--images", "-i", help="Folder or zip of the faces.")],
    resolutions: Resolutions = "112",
    aligned: Annotated[bool, typer.Option("--aligned", help="The faces are aligned, not loose crops.")] = False,
    detector_score: Annotated[bool, typer.Option(help="Let faces count by the score of the detector.")] = True,
    norm_score: Annotated[bool, typer.Option("--norm-score", help="Let longer embeddings count more.")] = False,
    flip: Annotated[bool, typer.Option(help="Embed mirror images, too.")] = True,
) -> Path:
    """Compare and search templates of several images each, as on IJB-B and IJB-C: 1:1 and 1:N.

    What META lacks, the pairs or the lists of 1:N, is not measured.
    """
    from btnet_eval.datasets.ijbc import find_lists, read_faces, read_subjects, read_template_pairs
    from btnet_eval.datasets.images import open_images
    from btnet_eval.template_measures import Search
    from btnet_eval.template_report import Aggregation, TemplateData, usable_faces, write_templates

    sides, lists, problems = parse_resolutions(resolutions), find_lists(meta), session.problems
    with open_images(images) as crops:
        landmarks = lists.landmarks if detector_score or not aligned else None
        faces = read_faces(lists.faces, crops, problems, landmarks=landmarks, aligned=aligned)
        faces = usable_faces(faces, crops, problems, session.progress)
        pairs = read_template_pairs(lists.pairs, faces.templates, problems) if lists.pairs else None
        search = None
        if lists.galleries and lists.probes:
            galleries = [read_subjects(path, faces.templates, problems) for path in lists.galleries]
            search = Search(galleries, read_subjects(lists.probes, faces.templates, problems))
        data = TemplateData(faces, crops, pairs, search)
        session.read.update({str(path): file_digest(path) for path in lists.found})
        return write_templates(session, data, sides, Aggregation(detector_score, norm_score, flip))


@measuring_lengths
def survface(session: "Session", folder: Release, lists: Lists = None) -> Path:
    """Measure QMUL-SurvFace, 1:N and 1:1, for all nine ways to select a branch by the size.

    FOLDER is the release, or its Face_Identification_Test_Set or Face_Verification_Test_Set alone: what has its lists
    there is measured.
    """
    from btnet_eval.datasets.images import open_images
    from btnet_eval.datasets.survface import PAIRS, SEARCH, find_lists, read_identification, read_verification
    from btnet_eval.small_faces import SurvFace, write_survface

    where = folder if lists is None else lists
    with open_images(folder) as images:
        of_search, of_pairs = find_lists(where)
        if of_search is None and of_pairs is None:
            raise typer.BadParameter(
                f"{where} has neither gallery_img_ID_pairs.mat nor positive_pairs_names.mat: "
                "give their folder with --lists"
            )
        search = pairs = None
        if of_search is not None:
            faces = images.below(SEARCH) or images
            search = faces, read_identification(_noted(session, of_search), faces, session.problems)
        if of_pairs is not None:
            faces = (images.below(PAIRS) or images).below("verification_images")
            pairs = faces, read_verification(_noted(session, of_pairs), faces, session.problems)
        return write_survface(session, SurvFace(search, pairs))


@measuring
def tinyface(session: "Session", folder: Release, lists: Lists = None) -> Path:
    """Search TinyFace's gallery and its distractors: rank-k and mAP. FOLDER is the release's Testing_Set."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.datasets.tinyface import read_tinyface
    from btnet_eval.small_faces import write_tinyface

    with open_images(folder) as images:
        people = read_tinyface(_lists(session, folder, lists), images, session.problems)
        return write_tinyface(session, images, people)


@measuring
def scface(
    session: "Session",
    folder: Collected,
    fine_tuned: Annotated[
        bool, typer.Option("--fine-tuned", help="Leave out the first 50 people, on whom models are fine-tuned.")
    ] = False,
) -> Path:
    """Search SCface's mugshots for the images of its cameras: rank-1 at three distances."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.datasets.scface import read_scface
    from btnet_eval.small_faces import write_scface

    with open_images(folder) as images:
        people = range(51, 131) if fine_tuned else None
        return write_scface(session, images, read_scface(images, session.problems, people=people))


def _lists(session: "Session", folder: Path, lists: Path | None) -> Path:
    """The folder of a release's .mat files, whose digests go into the report."""
    found = folder if lists is None else lists
    if not any(found.glob("*.mat")):
        raise typer.BadParameter(f"{found} has no .mat files: give their folder with --lists")
    return _noted(session, found)


def _noted(session: "Session", lists: Path) -> Path:
    """The folder of .mat files, whose digests are put into the report."""
    session.read.update({str(path): file_digest(path) for path in sorted(lists.glob("*.mat"))})
    return lists
