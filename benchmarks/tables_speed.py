"""Tables of the benchmarks of the engine and of resizing: Markdown from their JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

from common import load, noise_note, place, table

Results: TypeAlias = Mapping[str, Any]

BATCHES = {"single": "1 crop", "many": "8 crops and more"}
STAGES = ("taps", "horizontal", "vertical", "normalizing_vertical", "resize", "resize_normalize")
"""Of a resize, in resample_stages.cc."""
LOADING = (
    "ready, first time, s",
    "ready, again, s",
    "ratio",
    "anonymous, first time, MiB",
    "anonymous, again, MiB",
    "resident, first time, MiB",
    "resident, again, MiB",
)


def _head(results: Results) -> str:
    """What was measured on what, how noisy it was, and what is missing."""
    settings = results.get("settings", {})
    bundle = f"{settings['arch']}, width {settings['width']}. " if "arch" in settings else ""
    gpu = f"{settings['gpu']}; " if settings.get("gpu") else ""
    seed = f"; seed of the images {settings['seed']}" if "seed" in settings else ""
    noise = [noise_note(results)] if results["noise"]["figures"] else []  # without summaries there is nothing to note
    absent = [f"Not measured: {name}, since {why}." for name, why in results.get("absent", {}).items()]
    int8 = [f"8-bit graphs: {settings['int8']}."] if "int8" in settings else []
    return "\n\n".join([f"{bundle}{gpu}{place(results)}{seed}", *noise, *int8, *absent])


def _value(summary: Mapping[str, float], digits: int = 2) -> str:
    """A median and its spread."""
    return f"{summary['median']:.{digits}f} ± {summary['spread']:.1%}"


def _page(results: Results, *parts: str) -> str:
    return "\n\n".join([_head(results), *parts])


def accuracy(results: Results) -> str:
    """Cosine to PyTorch, for each branch."""
    cosine = results["cosine"]
    header, rows = ["branch"], []
    for precision in cosine:
        header += [f"{precision}, lowest"] if precision == "f32" else [f"{precision}, lowest", f"{precision}, mean"]
    for resolution in sorted(next(iter(cosine.values())), key=int, reverse=True):
        row = [resolution]
        for precision, of in cosine.items():
            both = [of[resolution][name] for name in ("lowest", "mean")]
            row += [f"{both[0]:.12f}"] if precision == "f32" else [f"{value:.6f}" for value in both]
        rows.append([*row, f"{results['median_cosine_of_two_crops'][resolution]:.3f}"])
    header.append("two different crops, median")
    crops = results["crops"]
    of = f"{crops['number']} crops, sides of {crops['shortest_side']} to {crops['longest_side']} px"
    return f"{of}. {_page(results, table(header, rows))}"


def memory_use(results: Results) -> str:
    """Memory and seconds to load of the engine and of OpenVINO's own API, and memory along a stream."""
    names = {"engine": "engine", "openvino": "OpenVINO's own API"}
    rows = [
        [precision, names[who], *_loading(twice)]
        for precision, of in results["precision"].items()
        for who, twice in of.items()
    ]
    stream = results["stream"]
    start, growth = stream["resident"][1000 // stream["every"]], stream["growth_after_1000"]
    return _page(
        results,
        table(["precision", "", *LOADING], rows),
        f"A stream of {stream['images']:,} generated images through a {stream['arch']} of width {stream['width']}: "
        f"{start:.0f} MiB resident after the first 1,000, at most {growth:.0f} MiB more after that.",
    )


def flops_latency(results: Results) -> str:
    """Costs, latency, rates, savings, and what it takes to load."""
    rows, saved, loaded = [], [], []
    for precision, of in results["precision"].items():
        for resolution, branch in of["branches"].items():
            engine, openvino = branch["engine"], branch.get("openvino")
            names = [precision, resolution]
            rates = [_value(engine["images_per_second"], 1), engine["best"]]
            if openvino:
                rates += [_value(branch["latency_to_openvino"]), _value(openvino["images_per_second"], 1)]
            rows.append([*names, *(_value(engine[name]) for name in ("p50_ms", "p95_ms")), *rates])
            saved += [[*names, BATCHES[number], *_savings(saving)] for number, saving in branch["saving"].items()]
        loaded += [[precision, name, *_loading(twice)] for name, twice in of["loading"].items()]
    versus = ["p50 / OpenVINO's", "OpenVINO's own API, images/s"] if results["settings"]["device"] == "cpu" else []
    header = ["precision", "branch", "p50, ms", "p95, ms", "images/s", "crops at once", *versus]
    of_openvino = ["OpenVINO's", "engine / OpenVINO"] if versus else []
    return _page(
        results,
        _costs(results),
        'Latency is that of one crop with `hint="latency"`; images/s are those of the best number of crops at once:',
        table(header, rows),
        "Realised saving, (time at 112 / time at r) / (GMACs at 112 / GMACs at r), 1 being all that was promised:",
        table(["precision", "branch", "at once", "engine", *of_openvino], saved),
        "To load an engine in a fresh process, and what that process has more in memory after a batch:",
        table(["precision", "branches", *LOADING], loaded),
    )


def _loading(twice: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The cells of LOADING for what loading.py measured."""
    first, again = twice["first"], twice["again"]
    seconds = [_value(times["seconds"]) for times in (first, again)]
    memory = [_value(times[part], 0) for part in ("anonymous", "resident") for times in (first, again)]
    return [*seconds, _value(twice["again_to_first"]), *memory]


def _savings(saving: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [_value(saving[who]) for who in ("engine", "openvino", "of_openvino") if who in saving]


def _costs(results: Results) -> str:
    """What each branch costs on paper, and what it adds to the trunk."""
    costs = results["costs"]
    rows = [
        [resolution, f"{cost['gmacs']:.3f}", *(f"{cost[kind] / 1e6:.2f}" for kind in ("parameters", "own_parameters"))]
        for resolution, cost in costs.items()
    ]
    own = [cost["own_parameters"] for cost in costs.values()]
    ratio = f"Trunk and branches together have {sum(own) / max(own):.2f} times the parameters of the trunk."
    header = ["branch", "GMACs an image", "parameters, millions", "of which not the trunk's, millions"]
    return f"{table(header, rows)}\n\n{ratio}"


def stage_macs(results: Results) -> str:
    """Where the multiply-accumulates of each branch lie."""
    costs = results["costs"]
    most, pixels = (max(kind) for kind in zip(*((c["gmacs"], int(r) ** 2) for r, c in costs.items()), strict=True))
    rows = []
    for resolution, cost in costs.items():
        stages = [f"{gmacs:.3f} ({gmacs / cost['gmacs']:.0%})" for gmacs in cost["gmacs_by_stage"].values()]
        of_trunk = [f"{cost['gmacs'] / most:.1%}", f"{int(resolution) ** 2 / pixels:.1%}"]
        rows.append([resolution, *stages, f"{cost['gmacs']:.3f}", *of_trunk])
    stages = next(iter(costs.values()))["gmacs_by_stage"]
    settings = results["settings"]
    header = ["branch", *stages, "all", "work, of the trunk's", "pixels, of the trunk's"]
    return f"GMACs an image of {settings['arch']}, width {settings['width']}:\n\n{table(header, rows)}"


def mixed_batch(results: Results) -> str:
    """The engine against the sum of the times of its branches alone."""
    rows, ways = [], []
    for precision, of in results["precision"].items():
        rates = [_value(branch["images_per_second"], 1) for branch in reversed(of["openvino"].values())]
        rows.append([precision, _value(of["ratio"], 3), *rates])
        ways += [[precision, r, branch["best"]] for r, branch in reversed(of["openvino"].items())]
    branches = reversed(next(iter(results["precision"].values()))["openvino"])
    header = ["precision", "engine / ideal", *(f"OpenVINO at {r}, images/s" for r in branches)]
    return _page(
        results,
        table(header, rows),
        "The best way to run each branch alone:",
        table(["precision", "branch", "OpenVINO's own API"], ways),
    )


def mixed(results: Results) -> str:
    """Engine with and without branches on the size mixes."""
    rows = [
        [precision, mix, batch, *(_value(of[who], 1) for who in ("btnet", "at_112")), _value(of["times_faster"])]
        for precision, mixes in results["precision"].items()
        for mix, batches in mixes.items()
        for batch, of in batches.items()
    ]
    branches = list(next(iter(results["branches"].values())))
    counts = [[mix, *(str(of[branch]) for branch in branches)] for mix, of in results["branches"].items()]
    header = ["precision", "mix", "crops at once", "images/s", "all at 112, images/s", "times as fast"]
    return _page(
        results,
        "How many crops of a mix go to each branch:",
        table(["mix", *branches], counts),
        table(header, rows),
    )


def peers(results: Results) -> str:
    """The engine against what else a user would run."""
    rows, limits = [], []
    for mix, of in results["mixes"].items():
        for name, peer in of["peers"].items():
            cosine = of["cosine"].get(name)
            compared = f"{cosine['lowest']:.6f} to {cosine['reference']}" if cosine else ""
            rows.append([mix, name, _value(peer["images_per_second"], 1), _value(peer["times_faster"]), compared])
        for precision, allowed in of["allowed"].items():
            engine = of["peers"][f"engine, {precision}"]["times_faster"]
            limit = [_value(allowed["times_faster"]), _value(allowed["reached"], 3)]
            limits.append([mix, precision, _value(engine), *limit])
    base, crops = results["settings"]["base"], results["settings"]["crops"]
    ways = [[name, way] for name, way in results["ways"].items() if isinstance(way, str)]
    faster = f"times as fast as {base}"
    allowed = "allowed by OpenVINO's own rates"
    return _page(
        results,
        f"{crops} crops of each mix:",
        table(["mix", "candidate", "images/s", faster, "lowest cosine"], rows),
        f"Times as fast as {base}: the engine, and what the best rate of OpenVINO's own API for each branch allows, "
        "measured in the same rounds:",
        table(["mix", "precision", "engine", allowed, "reached of it"], limits),
        "Each candidate runs in the fastest of a few ways:",
        table(["candidate", "way"], ways),
    )


def scaling(results: Results) -> str:
    """Time and memory over numbers, threads and sizes."""
    ways = results["numbers"]
    numbers = list(next(iter(ways.values()))["microseconds_an_image"])
    counts = []
    for number in numbers:
        times = [_value(of["microseconds_an_image"][number], 1) for of in ways.values()]
        counts.append([f"{int(number):,}", *times, *(f"{of['peak_megabytes'][number]:.0f}" for of in ways.values())])
    exponents = ", ".join(f"{_value(of['exponent'], 3)} with `{way}`" for way, of in ways.items())
    threads = [
        [number, _value(of["images_per_second"], 1), _value(of["speed_up"]), f"{of['anonymous_megabytes']:.0f}"]
        for number, of in results["threads"].items()
    ]
    sides = [
        [side, str(of["branch"]), _value(of["microseconds_an_image"], 1), f"{of['peak_megabytes']:.0f}"]
        for side, of in results["sides"].items()
    ]
    header = ["images", *(f"`{way}`, µs an image" for way in ways), *(f"`{way}`, peak, MiB more" for way in ways)]
    return _page(
        results,
        f"Exponent of time over number, from 100 images on: {exponents}.",
        table(header, counts),
        table(["threads", "images/s", "times as fast as one", "anonymous memory, MiB"], threads),
        table(["side of a crop", "branch", "µs an image", "peak, MiB more"], sides),
    )


def resample(results: Results) -> str:
    """Times of a resize, what they are made of, bytes, and threads."""
    names = {"pillow": "Pillow", "torch": "torch", "opencv_not_antialiased": "OpenCV, not antialiased"}
    first = next(iter(results["resize"].values()))
    paths = [path for path in ("avx512", "avx2", "plain") if path in first["microseconds"]]
    times, ratios, parts = [], [], []
    for sides, of in results["resize"].items():
        times.append([sides, *(f"{of['microseconds'][name]['median']:.1f}" for name in (*names, *paths))])
        kinds = [f"{path}{kind}" for kind in ("_to_torch", "_normalized_to_plain_resize") for path in paths]
        ratios.append([sides, *(f"{of['ratios'][kind]['median']:.2f}" for kind in kinds)])
    for path, stages in results["stages"].items():
        parts += [[path, sides, *(_value(stage[name], 1) for name in STAGES)] for sides, stage in stages.items()]
    return _page(
        results,
        "Microseconds of one call, one thread:",
        table(["sides", *names.values(), *paths], times),
        "Ratios to torch's uint8 channels-last `interpolate(antialias=True)`, and of the fused form, which "
        "resizes, normalises and spreads into planes, to the plain resize:",
        table(["sides", *(f"{p} / torch" for p in paths), *(f"fused / plain, {p}" for p in paths)], ratios),
        "Where the time goes, in microseconds, measured inside C++. `normalizing vertical` is the vertical pass of "
        "the fused form:",
        table(["code path", "sides", *(name.replace("_", " ") for name in STAGES)], parts),
        *_resample_bytes(results, paths),
        *_resample_threads(results),
    )


def _resample_bytes(results: Results, paths: Iterable[str]) -> list[str]:
    rows = []
    for sides, of in results["resize"].items():
        least, pixels = of["bytes"]["least"], of["output_pixels"]
        for path in paths:
            time, moved = of["microseconds"][path]["median"], of["bytes"]["moved"][path]
            speeds = [f"{1e3 * time / pixels:.2f}", f"{least / time / 1e3:.2f}"]
            rows.append([sides, path, f"{moved:,}", f"{least:,}", f"{moved / least:.2f}", *speeds])
    return [
        "Bytes, counted: the image read and the result written once is the least; the passes also write and read what "
        "lies between them. Times are for each pixel of the result, the rate is that of the least:",
        table(["sides", "code path", "moved", "least", "moved / least", "ns a pixel", "GB/s"], rows),
    ]


def _resample_threads(results: Results) -> list[str]:
    rows = [
        [sides, name.replace("_", " "), number, _value(of["images_per_second"], 0), _value(of["speed_up"])]
        for sides, candidates in results["threads"].items()
        for name, numbers in candidates.items()
        for number, of in numbers.items()
    ]
    return [
        "Threads that call the same function at once:",
        table(["sides", "candidate", "threads", "images/s", "times as fast as one"], rows),
    ]


def evaluation(results: Results) -> str:
    """How long it takes to embed faces at several resolutions, and to compare large sets."""
    settings, embedded, compared = results["settings"], results["embed"], results["compare"]
    sides = ", ".join(map(str, settings["resolutions"]))
    seconds = [[what, _value(embedded[turn], 1)] for turn, what in (("first", "embedded"), ("again", "from the cache"))]
    rows = [
        [what, *(_value(compared[name][part], 1) for part in ("seconds", "megabytes"))]
        for name, what in (("scores", "all scores"), ("search", "search for the nearest"))
    ]
    return _page(
        results,
        f"{settings['images']:,} faces at {sides} px through {settings['model']}, with flip:",
        table(["", "seconds"], seconds),
        f"{compared['rows']:,} embeddings with as many others, whose scores would take "
        f"{compared['matrix_megabytes']:,.0f} MiB:",
        table(["", "seconds", "at most, MiB more"], rows),
    )


def training_input(results: Results) -> str:
    """Images/s of training on faces as they come, and on one constant batch."""
    settings, rates = results["settings"], results["images_per_second"]
    row = [settings["precision"], str(settings["batch"]), *(_value(rates[way], 1) for way in ("new", "constant"))]
    header = [
        "precision",
        "batch",
        "images/s, as they come",
        "images/s, one constant batch",
        "time, the one / the other",
    ]
    return _page(results, table(header, [[*row, _value(results["time_ratio"], 3)]]))


def flame_graph(results: Results) -> str:
    """Who computes, of all samples."""
    parts = list(dict.fromkeys(part for of in results["precision"].values() for part in of["shares"]))
    rows = [
        [precision, f"{of['samples']:,}", *(f"{of['shares'].get(part, 0):.1%}" for part in parts)]
        for precision, of in results["precision"].items()
    ]
    return _page(results, table(["precision", "samples", *parts], rows))


TABLES: dict[str, dict[str, Callable[[Results], str]]] = {
    "accuracy": {"accuracy": accuracy},
    "costs": {"stage_macs": stage_macs},
    "evaluation": {"evaluation": evaluation},
    "flame_graph": {"flame_graph": flame_graph},
    "flops_latency": {"flops_latency": flops_latency},
    "memory_use": {"memory_use": memory_use},
    "mixed": {"mixed": mixed},
    "mixed_batch": {"mixed_batch": mixed_batch},
    "peers": {"peers": peers},
    "resample": {"resample": resample},
    "scaling": {"scaling": scaling},
    "training_input": {"training_input": training_input},
}
"""By the name of a JSON: its tables, by the name that their place in a page has."""


def for_pages(names: Iterable[str]) -> dict[str, Callable[[], str]]:
    """Tables of these JSON files as report.PAGES has them: by name, functions that read the file."""
    return {table: partial(_read_and_make, name, make) for name in names for table, make in TABLES[name].items()}


def _read_and_make(name: str, make: Callable[[Results], str]) -> str:
    return make(load(name))
