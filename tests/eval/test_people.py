"""Whose an image is: of the first folder that it is in, for every command that takes a folder a person."""

from pathlib import Path

import pytest
from dataset_files import write_images
from sessions import result_of

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.people import in_folders, person_of, read_faces
from command_line import Call

NAMES = [
    *("anna/monday/0.png", "anna/monday/1.png", "anna/tuesday/0.png"),
    *("bert/monday/0.png", "bert/tuesday/0.png", "bert/tuesday/1.png"),
    *("cleo/0.png", "alone.png"),
]
ALONE = "alone.png: it is in no folder of a person"


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Two persons in two sessions, three images each; one with a single image; and an image that is nobody's."""
    return write_images(tmp_path / "nested", NAMES)


def test_the_first_folder_is_the_person(nested: Path) -> None:
    assert [person_of(name) for name in ("a/b/c.png", "a/c.png", "c.png")] == ["a", "a", ""]
    problems = Problems()
    assert in_folders(NAMES, problems) == NAMES[:-1]
    assert problems.messages == (ALONE,)
    with pytest.raises(DataError, match=ALONE):
        in_folders(NAMES, Problems(strict=True))
    problems = Problems()
    faces = read_faces(open_images(nested), problems)
    assert faces.names == tuple(NAMES[:-1])
    assert faces.people == ("anna", "bert", "cleo")
    assert faces.persons.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert faces.sides.tolist() == [[8, 6]] * 7
    assert problems.messages == (ALONE, f"{nested}: cleo has one image, and so no pair of one person")


def test_all_commands_see_the_same_people(evaluate: Call, onnx_file: Path, nested: Path, tmp_path: Path) -> None:
    """The halves of `thresholds` have 2 + 2 + 1 images and 1 + 1, so 10 pairs, of which 2 + 2 are of one person."""
    shared = nested, "-m", onnx_file, "-o", tmp_path / "out"
    numbers = {}
    for command, *options in (
        ("own", "--sizes", "4"),
        ("thresholds", "--resolutions", "4", "--far", "0.5"),
        ("identify", "--resolutions", "4", "--gallery-images", "1", "--unmated", "0"),
    ):
        code, said, err = evaluate(command, *shared, *options)
        assert (code, err) == (0, [f"warning: 2 problems with the data, the first one: {ALONE}"]), command
        numbers[command] = result_of(said)
    assert numbers["own"]["numbers"]["people"] == 3
    assert numbers["thresholds"]["numbers"]["colours"]["impostors"] == 6
    assert numbers["identify"]["sections"][0]["rows"] == [[3, 3, 4, 0]]
    told = [result["problems"]["messages"][1] for result in numbers.values()]
    assert ["cleo" in message for message in told] == [True] * 3
