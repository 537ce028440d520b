from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.queue.states import finite_rows
from atr_moco_plugin.rank import RankLogger, alignment, rank_report


def unit(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    return normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def filled_queue(rows: int, size: int, seed: int = 0, first_id: int = 0) -> EmbeddingQueue:
    queue = EmbeddingQueue(size, 8)
    ids = torch.arange(first_id, first_id + rows)
    queue.enqueue(unit(rows, seed=seed), ids, ids)
    return queue


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_record_of_two_queues() -> None:
    audio, text = filled_queue(30, 40), filled_queue(30, 40, seed=1)
    record = RankLogger({"audio": audio, "text": text}, normalizer="sum", threshold=0.1).log(5)
    assert (record["step"], record["normalizer"], record["threshold"]) == (5, "sum", 0.1)
    source = record["sources"]["audio"]
    assert (source["rows"], source["dim"], source["queue_size"], source["fill"]) == (
        30,
        8,
        40,
        0.75,
    )
    for kind, center in (("raw", False), ("centered", True)):
        report = rank_report(unit(30), center=center, normalizer="sum", threshold=0.1)
        assert source[kind]["count"] == report.count
        assert source[kind]["rankme"] == pytest.approx(report.rankme)
        assert source[kind]["random"]["rankme"] == report.random_baseline.rankme
        assert source[kind]["spectrum"] == pytest.approx(report.normalized.tolist(), abs=1e-6)
        assert all(round(value, 6) == value for value in source[kind]["spectrum"])
    pair = record["pairs"]["audio_text"]
    assert pair["alignment"] == pytest.approx(alignment(unit(30), unit(30, seed=1)))
    assert 0 < pair["modality_gap"] < 1


def test_rows_that_were_never_filled_are_never_used() -> None:
    queue = filled_queue(6, 1000)
    logger = RankLogger({"audio": queue})
    first = logger.log(0)
    with torch.no_grad():
        queue.embeddings[6:] = float("nan")  # whatever lies there must not be read
    assert logger.log(0) == first
    assert first["sources"]["audio"]["raw"]["rankme"] <= 6


def test_single_source_a_function_and_a_tensor_that_changes() -> None:
    x = unit(20)
    record = RankLogger({"text": lambda: x}).log(0)
    assert record["pairs"] == {} and record["sources"]["text"]["fill"] is None
    logger = RankLogger({"text": x})
    before = logger.log(0)
    assert before == record
    x[:] = x[:1].clone()
    assert logger.log(1)["sources"]["text"]["raw"]["rankme"] == pytest.approx(1, abs=1e-4)


def test_too_few_rows_are_skipped(tmp_path: Path) -> None:
    queue = EmbeddingQueue(10, 8)
    path = tmp_path / "rank.jsonl"
    logger = RankLogger({"audio": queue, "text": unit(5)}, path)
    assert list(logger.log(0)["sources"]) == ["text"]
    assert RankLogger({"audio": queue}, tmp_path / "none.jsonl").log(0) is None
    assert not (tmp_path / "none.jsonl").exists()
    queue.enqueue(unit(1), torch.tensor([1]), torch.tensor([1]))
    assert list(logger.log(1)["sources"]) == ["text"]
    queue.enqueue(unit(1, seed=3), torch.tensor([2]), torch.tensor([2]))
    assert list(logger.log(2)["sources"]) == ["audio", "text"]


def test_alignment_needs_rows_that_belong_together() -> None:
    audio, text = filled_queue(10, 20), filled_queue(10, 20, seed=1, first_id=5)
    assert RankLogger({"audio": audio, "text": text}).log(0)["pairs"]["audio_text"] == {
        "alignment": None,
        "modality_gap": pytest.approx(float((unit(10).mean(0) - unit(10, seed=1).mean(0)).norm())),
    }
    longer = RankLogger({"audio": unit(10), "text": unit(11)}).log(0)
    assert longer["pairs"]["audio_text"]["alignment"] is None
    narrow = RankLogger({"audio": unit(10), "text": unit(10, dim=4)}).log(0)
    assert narrow["pairs"]["audio_text"] == {"alignment": None, "modality_gap": None}


def test_every() -> None:
    logger = RankLogger({"audio": unit(5)}, every=3)
    assert [step for step in range(8) if logger.log(step)] == [0, 3, 6]


def test_one_line_a_step_equal_to_the_record(tmp_path: Path) -> None:
    path = tmp_path / "run" / "rank.jsonl"
    logger = RankLogger({"audio": unit(5), "text": unit(5, seed=1)}, path)
    records = [logger.log(step) for step in (10, 20)]
    assert [json.loads(line) for line in path.read_text().splitlines()] == records


def test_resuming_at_an_earlier_step_drops_the_later_lines(tmp_path: Path) -> None:
    path = tmp_path / "rank.jsonl"
    first = RankLogger({"audio": unit(5)}, path)
    for step in (0, 10, 20, 30):
        first.log(step)
    kept = path.read_text().splitlines()[:2]
    resumed = RankLogger({"audio": unit(6)}, path)
    assert steps_in(path) == [0, 10, 20, 30]  # nothing is lost before there is something to write
    resumed.log(15)
    resumed.log(20)
    assert steps_in(path) == [0, 10, 15, 20]
    assert path.read_text().splitlines()[:2] == kept
    assert [file.name for file in tmp_path.iterdir()] == ["rank.jsonl"]


def test_resuming_at_a_later_step_appends(tmp_path: Path) -> None:
    path = tmp_path / "rank.jsonl"
    RankLogger({"audio": unit(5)}, path).log(10)
    RankLogger({"audio": unit(5)}, path).log(20)
    assert steps_in(path) == [10, 20]


def test_logging_a_step_twice_keeps_the_last(tmp_path: Path) -> None:
    path = tmp_path / "rank.jsonl"
    x = unit(5)
    logger = RankLogger({"audio": lambda: x}, path)
    logger.log(1)
    x = unit(7)
    logger.log(1)
    assert steps_in(path) == [1]
    assert json.loads(path.read_text())["sources"]["audio"]["rows"] == 7


@pytest.mark.parametrize("rest", ['{"step": 30, "sour', "{", '{"step": 30}'])
def test_half_written_last_line_is_dropped(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "rank.jsonl"
    logger = RankLogger({"audio": unit(5)}, path)
    logger.log(10)
    logger.log(20)
    with path.open("a") as file:
        file.write(rest)
    RankLogger({"audio": unit(5)}, path).log(40)
    assert steps_in(path) == [10, 20, 40]


@pytest.mark.parametrize("line", ["not json", '{"epoch": 3}', "[1]", '{"step": null}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rank.jsonl"
    path.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"rank\.jsonl, line 2: expected a JSON object"):
        RankLogger({"audio": unit(5)}, path)
    assert path.read_text() == '{"step": 1}\n' + line + "\n"


def test_undefined_measures_are_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rank.jsonl"
    record = RankLogger({"audio": torch.ones(4, 3)}, path).log(0)
    assert json.loads(path.read_text())["sources"]["audio"]["centered"]["alpha_req"] is None
    assert "audio_centered_alpha_req" not in RankLogger.scalars(record)
    assert RankLogger.scalars(record)["audio_centered_rankme"] == 0


def test_scalars_are_flat_floats() -> None:
    record = RankLogger({"audio": filled_queue(30, 40), "text": filled_queue(30, 40, 1)}).log(0)
    flat = RankLogger.scalars(record)
    assert all(isinstance(value, float) for value in flat.values())
    audio = record["sources"]["audio"]
    expected = {
        "audio_rows": 30,
        "audio_fill": 0.75,
        "audio_uniformity": audio["uniformity"],
        "audio_rankme": audio["raw"]["rankme"],
        "audio_rankme_random": audio["raw"]["random"]["rankme"],
        "audio_centered_rankme": audio["centered"]["rankme"],
        "audio_centered_count_random": audio["centered"]["random"]["count"],
        "audio_text_alignment": record["pairs"]["audio_text"]["alignment"],
        "audio_text_modality_gap": record["pairs"]["audio_text"]["modality_gap"],
    }
    assert {name: flat[name] for name in expected} == expected
    # Two sources with 3 values and 5 measures x (raw, centred) x (measured, random); one pair.
    assert len(flat) == 2 * (3 + 20) + 2


def test_rows_of_nobody_are_not_measured() -> None:
    """While a queue fills, a row of zeros stands for an item that is not finite."""
    queues = {name: EmbeddingQueue(40, 8) for name in ("audio", "text")}
    rows = {name: unit(20) for name in queues}
    broken = {name: x.clone() for name, x in rows.items()}
    broken["audio"][3] = float("nan")
    ids = torch.arange(20)
    finite = finite_rows(broken["audio"])
    for name, queue in queues.items():
        queue.enqueue(broken[name], ids, ids, finite=finite)
    kept = {name: x[ids != 3] for name, x in rows.items()}
    found, expected = RankLogger(queues).log(1), RankLogger(kept).log(1)
    assert found["sources"]["audio"]["rows"] == 19
    for name in queues:
        assert found["sources"][name]["raw"] == expected["sources"][name]["raw"]
    assert found["pairs"] == expected["pairs"]


def test_records_of_two_normalisers_are_not_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rank.jsonl"
    RankLogger({"audio": unit(30)}, path).log(1)
    RankLogger({"audio": unit(30)}, path).log(2)
    for options in ({"normalizer": "sum"}, {"threshold": 0.1}):
        with pytest.raises(InputError, match="one curve would be of both"):
            RankLogger({"audio": unit(30)}, path, **options)


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        RankLogger({})
    with pytest.raises(ValueError, match="every >= 1"):
        RankLogger({"audio": unit(3)}, every=0)
    with pytest.raises(ValueError, match="Unknown normalizer 'mean'"):
        RankLogger({"audio": unit(3)}, normalizer="mean")
    broken = unit(3)
    broken[1] = float("nan")
    with pytest.raises(ValueError, match="source 'text': 1 of 3 embedding rows are not finite"):
        RankLogger({"text": broken}).log(0)
