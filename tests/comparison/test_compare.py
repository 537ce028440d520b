"""Whole comparisons: of evaluations, of files of TREC, of both; and what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from compared_folders import clips, evaluation
from docs.pages import run_python

from atr_moco_plugin.comparison.assemble import Comparison, Options, compare
from atr_moco_plugin.comparison.command import main
from atr_moco_plugin.comparison.inference import Settings
from atr_moco_plugin.comparison.sides import parse_sides
from atr_moco_plugin.comparison.tables import pair_table
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, read_queries, write_queries

SOME = Settings(replicates=200, flips=200)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a`` and a better ``b`` on one test set, ``other`` on another."""
    root = tmp_path_factory.mktemp("runs")
    evaluation(root / "a", clips(), 0, config={"name": "a"}, trec=True)
    evaluation(root / "b", clips(), 1, skill=3.0, config={"name": "b"}, trec=True)
    return root


def compared(*arguments: object, **options: object) -> Comparison:
    sides, notes = parse_sides([str(argument) for argument in arguments])
    return compare(sides, Options(settings=SOME, **options), notes)  # type: ignore[arg-type]


def test_a_comparison_for_json(folders: Path) -> None:
    found = compared(folders / "a", folders / "b").to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (pair,) = found["comparisons"]
    assert (pair["base"], pair["ours"], pair["test"]) == ("a", "b", "exchange of clips")
    assert found["queries"] == {"a2t": 12, "t2a": 36} and found["clusters"] == 12
    for figure in pair["figures"].values():
        assert figure["difference"] == pytest.approx(figure["ours"] - figure["base"])
        low, high = figure["interval"]
        assert low <= figure["difference"] <= high
        assert 0 < figure["p"] <= figure["p_holm"] <= 1
    for counts, queries in zip(pair["queries"].values(), (12, 36), strict=True):
        assert sum(counts.values()) == queries
    assert pair["figures"]["r_sum"]["difference"] > 0


def test_files_of_trec_give_the_figures_of_the_evaluation(folders: Path) -> None:
    whole = compared(folders / "a", folders / "b").to_dict()["comparisons"][0]["figures"]
    for way in ("a2t", "t2a"):
        for base in (folders / "a", folders / f"a/trec/{way}_dual.run"):
            found = compared(base, folders / f"b/trec/{way}_dual.run")
            (pair,) = found.to_dict()["comparisons"]
            assert set(pair["figures"]) == {f"{way}_{x}" for x in ("r1", "r5", "r10", "map10")}
            for name, figure in pair["figures"].items():
                for key in ("base", "ours", "difference"):
                    assert figure[key] == pytest.approx(whole[name][key])
            # The captions of a clip are one cluster here too.
            assert found.measures.clusters == 12


def test_texts_of_a_label_are_one_cluster(tmp_path: Path) -> None:
    a, b = (
        evaluation(tmp_path / name, clips(), n, mode="label", config={"name": name})
        for n, name in enumerate("ab")
    )
    found = compared(a, b)
    assert found.measures.strata == (12, 4)


def test_pairs_of_three_sides(folders: Path, tmp_path: Path) -> None:
    c = evaluation(tmp_path / "c", clips(), 2, config={"name": "c"})
    three = (folders / "a", folders / "b", c)
    first = compared(*three, figures=("r_sum", "t2a_r1"))
    every = compared(*three, figures=("r_sum", "t2a_r1"), all_pairs=True)
    assert [(p.base, p.ours) for p in first.pairs] == [(0, 1), (0, 2)] and first.tests == 4
    assert [(p.base, p.ours) for p in every.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert first.names == ("t2a_r1", "r_sum")
    # More tests correct more.
    assert all(
        x >= y for x, y in zip(every.pairs[0].corrected, first.pairs[0].corrected, strict=True)
    )


def test_seeds(tmp_path: Path) -> None:
    sides = [
        f"{name}=" + ",".join(
            str(evaluation(tmp_path / f"{name}{seed}", clips(), seed + 10 * n, config={"n": n}))
            for seed in range(2)
        )
        for n, name in enumerate(("base", "ours"))
    ]  # fmt: skip
    (pair,) = (found := compared(*sides).to_dict())["comparisons"]
    assert pair["test"] == "t over seeds and clips"
    assert all(
        0 <= x["p"] <= 1 and math.isfinite(sum(x["interval"])) for x in pair["figures"].values()
    )
    assert any("Seeds were drawn first" in note for note in found["notes"])


def test_results_of_the_same_runs_are_compared_run_by_run(tmp_path: Path) -> None:
    runs = [str(evaluation(tmp_path / f"r{n}", clips(), n, config={"n": n})) for n in range(3)]
    there = [f"dual={','.join(runs)}", f"again={','.join(f'{run}:reranked_k4' for run in runs)}"]
    back = [there[0], f"again={','.join(f'{run}:reranked_k4' for run in reversed(runs))}"]
    found, other = compared(*there), compared(*back)
    assert found.to_dict()["comparisons"][0]["paired"]
    assert any("are of the same runs" in note for note in found.notes)
    np.testing.assert_array_equal(found.pairs[0].found.low, other.pairs[0].found.low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 11}, r"1 clips only in the first \(clip 11\)"),
        ({"name": "other"}, "12 clips only in the first"),
        ({"captions": 2}, "12 captions only in the first"),
    ],
)
def test_other_test_sets_are_refused(
    folders: Path, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    other = evaluation(tmp_path / "other", clips(**change), 0)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=f"not of one test set: both are tiny test, but .*{message}"
    ):
        compared(folders / "a", other)


def test_other_relevance_is_refused(folders: Path, tmp_path: Path) -> None:
    other = evaluation(tmp_path / "other", clips(), 0, mode="label")
    with pytest.raises(InputError, match="other clips and captions are relevant"):
        compared(folders / "a", other)


def test_another_split_is_refused(folders: Path, tmp_path: Path) -> None:
    other = evaluation(tmp_path / "other", clips(), 0, split="valid")
    with pytest.raises(InputError, match="other is evaluated on valid, not on 'test'"):
        compared(folders / "a", other)


def test_of_several_splits_test_is_compared(tmp_path: Path) -> None:
    """What a training run leaves: figures of two splits in one file."""

    def run(name: str, seed: int, splits: tuple[str, ...]) -> Path:
        found = {}
        for split in splits:
            folder = evaluation(tmp_path / name, clips(), seed, split=split, config={"x": name})
            found |= read_queries(folder / QUERIES_FILE)
        write_queries(folder / QUERIES_FILE, found)
        return folder

    a, b = (run(name, n, ("valid", "test")) for n, name in enumerate("ab"))
    assert compared(a, b).size.startswith("tiny test, ")
    assert compared(a, b, split="valid").size.startswith("tiny valid, ")
    a, b = (run(name, n, ("one", "two")) for n, name in enumerate("cd"))
    with pytest.raises(InputError, match="the splits one, two: name one with --split"):
        compared(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": "reranked_k9"}, "no results of 'reranked_k9' .* but of dual, dual_dup"),
        ({"split": "valid"}, "evaluated on test, not on 'valid'"),
        ({"figures": ("r2",)}, "no figure 'r2' .* a2t_r1"),
    ],
)
def test_what_is_not_there(folders: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compared(folders / "a", folders / "b", **options)


def test_a_folder_without_rankings_beside_a_file_of_trec(folders: Path, tmp_path: Path) -> None:
    bare = evaluation(tmp_path / "bare", clips(), 3)
    with pytest.raises(InputError, match="t2a_dual.run is not there: .* evaluate again"):
        compared(folders / "a/trec/t2a_dual.run", bare)


def test_a_folder_without_results(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="queries.safetensors is not there"):
        compared(folders / "a", tmp_path)


def test_ranks_beyond_the_list_count_as_not_found(folders: Path, tmp_path: Path) -> None:
    """A list of ten of twelve clips."""
    run = folders / "a/trec/t2a_dual.run"
    lines = [line for line in run.read_text().splitlines() if int(line.split()[3]) <= 10]
    cut = tmp_path / "t2a_cut.run"
    cut.write_text("\n".join(lines))
    (tmp_path / "t2a.qrels").write_bytes((folders / "a/trec/t2a.qrels").read_bytes())
    found = compared(run, cut)
    np.testing.assert_allclose(found.pairs[0].found.difference, 0)


def test_rankings_of_other_items_are_refused(folders: Path, tmp_path: Path) -> None:
    """Ten clips to choose from were compared with twelve."""
    trec = folders / "a/trec"
    rows = [line.split() for line in (trec / "t2a_dual.run").read_text().splitlines()]
    more = [[query, "Q0", "another", "99", "-9", "x"] for query in {row[0] for row in rows}]
    run = tmp_path / "t2a_more.run"
    run.write_text("\n".join(map(" ".join, [*rows, *more])))
    with pytest.raises(InputError, match="12 items for every query, and .* lists another, which"):
        compared(run, trec / "t2a_dual.run", qrels=trec / "t2a.qrels")
    with pytest.raises(InputError, match="12 items for every query, and .* lists another, which"):
        compared(trec / "t2a_dual.run", run, qrels=trec / "t2a.qrels")


@pytest.mark.parametrize("change", ["distances", "twice", "few", "words", "unknown", "gone"])
def test_broken_files_of_trec(folders: Path, tmp_path: Path, change: str) -> None:
    trec = folders / "a/trec"
    rows = [line.split() for line in (trec / "t2a_dual.run").read_text().splitlines()]
    message = {
        "distances": "do not fall from rank to rank",
        "twice": "a second time; an item has one place",
        "few": "fewer than 10 items .* R@10 is not known",
        "words": "two numbers",
        "unknown": "has 1 query that .* has not, such as new",
        "gone": "has 1 query that .* has not",
    }[change]
    query = rows[0][0]
    if change == "distances":
        rows = [[*row[:4], str(-float(row[4])), row[5]] for row in rows]
    elif change == "twice":
        rows.append(rows[0])
    elif change == "few":
        rows = [row for row in rows if int(row[3]) <= 5]
    elif change == "words":
        rows[3][4] = "high"
    elif change == "unknown":
        rows += [["new", *row[1:]] for row in rows if row[0] == query]
    elif change == "gone":
        rows = [row for row in rows if row[0] != query]
    run = tmp_path / "t2a_broken.run"
    run.write_text("\n".join(map(" ".join, rows)))
    with pytest.raises(InputError, match=message):
        compared(trec / "t2a_dual.run", run, qrels=trec / "t2a.qrels")


def test_lines_of_trec_in_any_order(folders: Path, tmp_path: Path) -> None:
    trec = folders / "a/trec"
    run = tmp_path / "t2a_turned.run"
    run.write_text("\n".join(reversed((trec / "t2a_dual.run").read_text().splitlines())))
    found = compared(trec / "t2a_dual.run", run, qrels=trec / "t2a.qrels")
    np.testing.assert_allclose(found.pairs[0].found.difference, 0)


def test_qrels_that_contradict_themselves(folders: Path, tmp_path: Path) -> None:
    trec = folders / "a/trec"
    lines = (trec / "t2a.qrels").read_text()
    bad = tmp_path / "bad.qrels"
    first = lines.splitlines()[0]
    bad.write_text(lines + first[:-1] + "0\n")
    files = (trec / "t2a_dual.run", folders / "b/trec/t2a_dual.run")
    with pytest.raises(InputError, match="a second time; take one"):
        compared(*files, qrels=bad)
    bad.write_text(lines.replace(first, first[:-1] + "0"))
    with pytest.raises(InputError, match="1 query has no relevant item"):
        compared(*files, qrels=bad)


def test_the_direction_of_a_file_is_asked_for(folders: Path, tmp_path: Path) -> None:
    trec = folders / "a/trec"
    run = tmp_path / "mine.run"
    run.write_bytes((trec / "t2a_dual.run").read_bytes())
    copy = tmp_path / "other.run"
    copy.write_bytes(run.read_bytes())
    with pytest.raises(InputError, match="give --direction"):
        compared(run, copy, qrels=trec / "t2a.qrels")
    found = compared(run, copy, qrels=trec / "t2a.qrels", direction="t2a")
    assert found.names[0] == "t2a_r1"
    with pytest.raises(InputError, match="give the judgements with --qrels"):
        compared(run, copy, direction="t2a")


def test_a_direction_that_the_name_of_a_file_contradicts_is_refused(folders: Path) -> None:
    files = [folders / x / "trec/t2a_dual.run" for x in "ab"]
    with pytest.raises(InputError, match="--direction a2t contradicts the name of t2a_dual.run"):
        compared(*files, qrels=folders / "a/trec/t2a.qrels", direction="a2t")
    assert compared(*files, direction="t2a").names[0] == "t2a_r1"


@pytest.mark.parametrize("direction", [None, "a2t", "t2a"])
def test_files_of_two_directions_are_refused(folders: Path, direction: str | None) -> None:
    files = [folders / "a/trec" / f"{way}_dual.run" for way in ("a2t", "t2a")]
    with pytest.raises(InputError, match="a2t_dual.run and t2a_dual.run are of a2t and t2a, and"):
        compared(*files, qrels=folders / "a/trec/t2a.qrels", direction=direction)


def test_a_name_that_only_begins_like_a_direction_says_none(folders: Path) -> None:
    trec = folders / "a/trec"
    odd = trec / "a2tnet.run"
    odd.write_bytes((trec / "t2a_dual.run").read_bytes())
    found = compared(odd, folders / "b/trec/t2a_dual.run", qrels=trec / "t2a.qrels")
    assert found.names[0] == "t2a_r1"


def test_the_command(
    folders: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--replicates", "100", "--flips", "100"]
    runs = [str(folders / name) for name in "ab"]
    assert main([*runs, *few, "--no-page"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii() and max(map(len, printed.splitlines()[:16])) <= 100
    assert "b beside a on tiny test, 12 clips, 36 captions" in printed
    assert not any(tmp_path.iterdir())
    assert main([*runs, *few, "--no-page", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tests"] == 11
    assert main([runs[0], str(tmp_path / "nowhere"), *few]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("ERROR: ") and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_page_that_cannot_be_made_is_told_before_the_work(
    package: str,
    folders: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    runs = [str(folders / name) for name in "ab"]
    assert main([*runs, "--page", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert not shown.out and f"--page {tmp_path} is a folder" in shown.err
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    assert main([*runs, "--page", str(tmp_path / "page.html")]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.endswith("[report]`, or give --no-page.\n")
    assert f"needs {package}" in shown.err and shown.err.count("\n") == 1


def test_strict_and_duplicate_aware_results_are_not_compared(folders: Path) -> None:
    with pytest.raises(InputError, match="not judged alike: one counts captions with equal text"):
        compared(folders / "a", f"{folders / 'b'}:dual_dup")
    assert compared(f"{folders / 'a'}:dual_dup", f"{folders / 'b'}:dual_dup").pairs


@pytest.mark.parametrize(
    ("sides", "options", "message"),
    [
        (("a", "b"), {"qrels": Path("nowhere")}, "--qrels nowhere does nothing here"),
        (("a", "b"), {"direction": "t2a"}, "--direction t2a does nothing here"),
        (("a/trec/t2a_dual.run", "b"), {"split": "valid"}, "--split valid does nothing here"),
        (
            ("a/trec/t2a_dual.run", "b/trec/t2a_dual.run"),
            {"system": "reranked_k4"},
            "--system reranked_k4 does nothing here: a .run file has one system",
        ),
    ],
)
def test_options_that_would_do_nothing(
    folders: Path, sides: tuple[str, str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"{message}.*leave it out"):
        compared(*(f"{folders}/{side}" for side in sides), **options)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_equal_ranks_contradict_no_score(folders: Path, tmp_path: Path, rank: str) -> None:
    trec = folders / "a/trec"
    rows = [line.split() for line in (trec / "t2a_dual.run").read_text().splitlines()]
    run = tmp_path / "t2a_equal.run"
    run.write_text("\n".join(" ".join([*row[:3], rank, *row[4:]]) for row in rows))
    found = compared(trec / "t2a_dual.run", run, qrels=trec / "t2a.qrels")
    np.testing.assert_allclose(found.pairs[0].found.difference, 0)


def test_a_shorter_list_loses_no_query_that_it_could_not_show(tmp_path: Path) -> None:
    of = clips(40)
    trec = evaluation(tmp_path / "run", of, 0, skill=0.5, trec=True) / "trec"
    rows = [line.split() for line in (trec / "t2a_dual.run").read_text().splitlines()]
    run = tmp_path / "t2a_cut.run"
    run.write_text("\n".join(" ".join(row) for row in rows if int(row[3]) <= 10))
    for sides in ((trec / "t2a_dual.run", run), (run, trec / "t2a_dual.run")):
        found = compared(*sides, qrels=trec / "t2a.qrels")
        assert found.pairs[0].better == {"t2a": (0, 120, 0)}
        assert {result.depth for side in found.results for result in side} == {10}


def test_sentences_of_one_clip_or_with_the_same_clips_are_one_cluster_in_files(
    tmp_path: Path,
) -> None:
    """Five wordings of a label are one draw, as an evaluation has them."""
    folders = [
        evaluation(tmp_path / name, clips(), n, mode="label", config={"name": name}, trec=True)
        for n, name in enumerate("ab")
    ]
    whole = compared(*folders)
    for way, number, clusters in zip(("a2t", "t2a"), whole.measures.strata, (12, 4), strict=True):
        found = compared(*(folder / f"trec/{way}_dual.run" for folder in folders))
        assert found.measures.clusters == number == clusters

    # A mark in a name of another program tells no clip.
    named = [tmp_path / f"t2a_{x}.run" for x in "ab"]
    for file, folder in zip(named, folders, strict=True):
        text = (folder / "trec/t2a_dual.run").read_text()
        file.write_text(re.sub(r"^\S*#", "q#", text, flags=re.M))
    judged = (folders[0] / "trec/t2a.qrels").read_text()
    (tmp_path / "q.qrels").write_text(re.sub(r"^\S*#", "q#", judged, flags=re.M))
    found = compared(*named, qrels=tmp_path / "q.qrels")
    assert found.measures.clusters == 4

    # Of graded judgements, which call clips of others relevant too, captions have a clip still.
    of_clips = [
        evaluation(tmp_path / f"{name}2", clips(), n, config={"name": name}, trec=True) / "trec"
        for n, name in enumerate("ab")
    ]
    lines = (of_clips[0] / "t2a.qrels").read_text().splitlines()
    more = list(lines)
    for number, line in enumerate(lines):
        query, _, _, _ = line.split()
        more.append(f"{query} 0 clip%20{(number // 3 + 1 + number % 3) % 12} 1")
    graded = tmp_path / "t2a_graded.qrels"
    graded.write_text("\n".join(more))
    found = compared(*(folder / "t2a_dual.run" for folder in of_clips), qrels=graded)
    assert found.measures.clusters == 12


def test_what_is_not_listed_stands_behind_the_list_in_every_count(tmp_path: Path) -> None:
    """Found once in two seeds at rank 1 is worse than twice at rank 6, of lists of 10 items."""
    sides = {"a": (1, None), "b": (6, 6)}
    for side, ranks in sides.items():
        for seed, rank in enumerate(ranks):
            lines = []
            for query in range(3):
                items = [f"wrong{n}" for n in range(10)]
                if rank is not None or query == 0:
                    items[(rank or 1) - 1] = f"right{query}"
                lines += [f"q{query} Q0 {x} {n} {20 - n} s" for n, x in enumerate(items, 1)]
            (tmp_path / f"t2a_{side}{seed}.run").write_text("\n".join(lines))
    qrels = tmp_path / "t2a.qrels"
    qrels.write_text("\n".join(f"q{n} 0 right{n} 1" for n in range(3)))
    named = [f"{x}={tmp_path}/t2a_{x}0.run,{tmp_path}/t2a_{x}1.run" for x in "ab"]
    found = compared(*named, qrels=qrels)
    # 1 and 11 are better than 6 and 6: in the mean of logarithms 1.73 to 2.58.
    assert found.pairs[0].better == {"t2a": (0, 0, 3)}


def test_items_of_other_names_are_no_bad_ranking(folders: Path, tmp_path: Path) -> None:
    trec = folders / "a/trec"
    rows = [line.split() for line in (trec / "t2a_dual.run").read_text().splitlines()]
    run = tmp_path / "t2a_named.run"
    run.write_text("\n".join(" ".join([*row[:2], f"{row[2]}.wav", *row[3:]]) for row in rows))
    with pytest.raises(InputError, match=r"lists no relevant item .* like 'clip%20\d+.wav'"):
        compared(trec / "t2a_dual.run", run, qrels=trec / "t2a.qrels")


def test_queries_without_an_answer_on_one_side_are_no_hits(folders: Path, tmp_path: Path) -> None:
    split = read_queries(folders / "b" / QUERIES_FILE)["test"]
    split.systems["t2a"]["dual"].rank[:5] = 0
    write_queries(tmp_path / QUERIES_FILE, {"test": split})
    with pytest.raises(InputError, match="of t2a 5 queries have an answer in one of them alone"):
        compared(folders / "a", tmp_path)


def test_intervals_end_where_differences_do(tmp_path: Path) -> None:
    """Of three clips, Student's t has two degrees of freedom."""
    for seed, skill in enumerate((-1.0, 1.0)):
        evaluation(tmp_path / f"{seed}", clips(3, 1), seed, skill=skill, config={"name": seed})
    found = compared(tmp_path / "0", tmp_path / "1")
    most = [600.0 if n == "r_sum" else math.inf if "medr" in n else 100.0 for n in found.names]
    pair = found.pairs[0].found
    assert (pair.high == most).any() and (pair.low >= -np.array(most)).all()
    assert (pair.high <= most).all()


def test_columns_of_files_with_one_name(folders: Path) -> None:
    found = compared(*(folders / f"{x}/trec/t2a_dual.run" for x in "ab"))
    header = pair_table(found, found.pairs[0]).header
    assert header[1].endswith("/a") and header[2].endswith("/b"), header


def test_the_code_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("base", "ours")):
        evaluation(tmp_path / f"runs/{name}-test", clips(), n, skill=1.0 + n, config={"name": name})
    names = run_python("docs/compare.md")
    assert names["low"] < names["high"] and names["found"].tests == 2
