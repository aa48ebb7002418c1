"""Reads a runs folder with pyarrow, as a Python user would, and checks what stands in it.

By hand (needs `pip install pyarrow`):

    cargo run --release -- run scripts/ablate_steps.lua
    python tests/interop/read_with_pyarrow.py runs
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet


def check(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["schema"] == 1 and record["id"] == folder.name, folder
    for name in ("results", "training"):
        path = folder / f"{name}.parquet"
        rows = record[f"{name}_rows"]
        if rows == 0:
            assert not path.exists(), path
            continue
        table = parquet.read_table(path)
        assert table.num_rows == rows, (path, table.num_rows, rows)
        assert table.column_names[:2] == ["run", "run_id"], (path, table.column_names)
        assert set(table["run"].to_pylist()) == {record["name"]}, path
        assert set(table["run_id"].to_pylist()) == {record["id"]}, path
        print(f"{path}: {rows} rows, columns {', '.join(table.column_names)}")


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    folders = sorted(path.parent for path in root.glob("*/run.json"))
    assert folders, f"no runs in {root}"
    for folder in folders:
        check(folder)
    print(f"{len(folders)} runs are as they should be")


if __name__ == "__main__":
    main()
