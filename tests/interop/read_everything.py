"""Reads runs as Python users would, with every library that is installed, and checks what stands in them.

`cargo test` makes the files and calls this with their folder. What is not installed is skipped and named:

    pip install pyarrow duckdb pandas polars tensorboard
    LFT_PYTHON=path/to/python cargo test --release --test tables python -- --nocapture
"""

import importlib
import json
import sys
from pathlib import Path

TABLES = ("results", "training")


def records(runs: Path) -> dict:
    read = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/run.json")]
    assert read and all(record["schema"] == 1 for record in read)
    return {record["id"]: record for record in read}


def files(runs: Path, table: str) -> list[str]:
    """The files of a table: those of single runs, and those that `lft compact` made."""
    found = [*runs.glob(f"*/{table}.parquet"), *runs.glob(f"compacted/{table}-*.parquet")]
    assert any(path.parent.name == "compacted" for path in found), found
    return sorted(str(path) for path in found)


def check(table: str, rows: list[dict], runs: dict) -> None:
    """Each row of `rows` has the columns run, run_id, method, the step, and the value."""
    expected = {id: record[f"{table}_rows"] for id, record in runs.items()}
    counted = dict.fromkeys(runs, 0)
    for row in rows:
        counted[row["run_id"]] += 1
        assert row["run"] == runs[row["run_id"]]["name"] and row["method"] == "fm", row
        step, value = (row["k"], row["kl"]) if table == "results" else (row["step"], row["loss"])
        assert value == 1 / (step + 1), row
    assert counted == expected, (counted, expected)


def with_pyarrow(root: Path, runs: dict) -> None:
    import pyarrow.dataset as dataset
    import pyarrow.parquet as parquet

    for table in TABLES:
        check(table, dataset.dataset(files(root / "runs", table)).to_table().to_pylist(), runs)
    check("training", parquet.read_table(root / "all.parquet").to_pylist(), runs)


def with_duckdb(root: Path, runs: dict) -> None:
    import duckdb

    for table in TABLES:
        relation = duckdb.sql(f"SELECT * FROM read_parquet({files(root / 'runs', table)}, union_by_name = true)")
        check(table, [dict(zip(relation.columns, row)) for row in relation.fetchall()], runs)


def with_pandas(root: Path, runs: dict) -> None:
    import pandas

    importlib.import_module("pyarrow")
    for table in TABLES:
        frame = pandas.concat(pandas.read_parquet(file) for file in files(root / "runs", table))
        check(table, frame.to_dict("records"), runs)


def with_polars(root: Path, runs: dict) -> None:
    import polars

    for table in TABLES:
        check(table, polars.scan_parquet(files(root / "runs", table)).collect().to_dicts(), runs)


def with_tensorboard(root: Path, runs: dict) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for id, record in runs.items():
        folders = [path.parent for path in (root / "logs" / id).glob("*/events.out.tfevents.*")]
        assert len(folders) == (record["training_rows"] > 0), (id, folders)
        for folder in folders:
            events = EventAccumulator(str(folder)).Reload()
            for tag, rows in (("training/loss", record["training_rows"]), ("results/kl", record["results_rows"])):
                scalars = events.Scalars(tag)
                assert [scalar.step for scalar in scalars] == list(range(rows)), scalars
                assert all(abs(scalar.value - 1 / (scalar.step + 1)) < 1e-6 for scalar in scalars), scalars


def main() -> None:
    root = Path(sys.argv[1])
    runs = records(root / "runs")
    for reader in (with_pyarrow, with_duckdb, with_pandas, with_polars, with_tensorboard):
        name = reader.__name__.removeprefix("with_")
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"skipped: {name} is not installed")
            continue
        reader(root, runs)
        print(f"{name}: {len(runs)} runs are as they should be")


if __name__ == "__main__":
    main()
