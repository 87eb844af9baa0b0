"""Files that want more than to be read: to fill the memory, to reach other files or servers, to run, to steer."""

import ast
import gzip
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from connectors import files, unpacking
from connectors.cli import app
from connectors.exports import Wanted, export
from connectors.files import Raw, reader_of
from connectors.rows import MOST_NAMED, checked
from connectors.sources import ingest
from loop.config import Config, PoolConfig, StudentConfig, TaskConfig
from loop.errors import BadRow, PreceptorError, StudentError
from loop.ports import Silent
from loop.records import DecisionKind, Split
from loop.store import items
from loop.student import checkpoint
from tests.builders import RUN, a_reply, a_round, a_store, an_item, decided, queried
from tests.tiny import tiny_model, tiny_project

ROOT = Path(__file__).resolve().parents[1]
READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from connectors.files import reader_of
from connectors.rows import checked
from loop.errors import BadRow
for name in sys.argv[1:]:
    bad = 0
    try:
        for raw in reader_of(Path(name))(Path(name)):
            try:
                checked(raw)
            except BadRow as error:
                bad, said = bad + 1, str(error)
    except BadRow as error:
        bad, said = bad + 1, str(error)
    print(bad, said)
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)  # getrusage would start at the parent's
"""


def read(path: Path) -> list[Raw]:
    return list(reader_of(path)(path))


def problems(path: Path) -> list[str]:
    return [raw.problem or "" for raw in read(path)]


# --- bombs ------------------------------------------------------------------------------------------------------------


def test_a_kilobyte_that_unpacks_to_many_gigabytes_costs_neither_memory_nor_the_run(tmp_path: Path) -> None:
    text, many = "a" * (8 * 2**20), 2000
    named = pa.DictionaryArray.from_arrays(pa.array([0] * many, pa.int32()), pa.array([text]))
    choices = pa.ListArray.from_arrays(pa.array(range(0, 2 * many + 1, 2), pa.int32()), pa.DictionaryArray.from_arrays(
        pa.array([0] * 2 * many, pa.int32()), pa.array([text])
    ))  # fmt: skip
    whole = {"compression": "zstd", "dictionary_pagesize_limit": 2**30}
    pq.write_table(pa.table({"question": named}), tmp_path / "texts.parquet", **whole)
    pq.write_table(pa.table({"question": ["How?"] * many, "choices": choices}), tmp_path / "lists.parquet", **whole)
    delta = {"use_dictionary": False, "column_encoding": {"question": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"question": [text] * 20}), tmp_path / "deltas.parquet", compression="zstd", **delta)
    paths = sorted(tmp_path.glob("*.parquet"))
    assert all(path.stat().st_size < 100_000 for path in paths)
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *said, memory = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["20", str(many), str(many)]
    assert all("the row is longer than" in line for line in said)
    assert int(memory) < 2000


def test_a_row_group_that_unpacks_to_too_much_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", 100_000)
    pq.write_table(pa.table({"question": ["x" * 1000] * 5, "other": ["y"] * 5}), tmp_path / "fine.parquet")
    assert len(read(tmp_path / "fine.parquet")) == 5
    plain = {"use_dictionary": False, "compression": "zstd"}
    pq.write_table(pa.table({"question": ["x" * 1000] * 500}), tmp_path / "large.parquet", **plain)
    with pytest.raises(BadRow, match=r"row group 0 unpacks to \d+ bytes.*row_group_size=10000"):
        read(tmp_path / "large.parquet")
    pq.write_table(pa.table({"question": pa.nulls(50_000, pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(BadRow, match="row group 0 unpacks to"):
        read(tmp_path / "empty.parquet")
    pq.write_table(pa.table({"question": ["x" * 1000] * 500}), tmp_path / "small.parquet", row_group_size=50, **plain)
    assert len(read(tmp_path / "small.parquet")) == 500


def test_a_line_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    monkeypatch.setattr(files, "MOST_UNPACKED", 100_000)
    path = tmp_path / "zeros.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"question": "How?"}\n' + b"\0" * 10_000_000)
    fine, long, over = read(path)
    assert fine.problem is None
    assert "longer than 1000 bytes" in str(long.problem)
    assert "a line of more than 100000 bytes" in str(over.problem)
    path.with_suffix("").write_text("question\n" + "x" * 5000 + "\nHow?\n")
    sheet = path.with_suffix("").rename(tmp_path / "long.csv")
    assert read(sheet)[-1].fields == {"question": "How?"}


def test_of_very_many_bad_rows_only_the_first_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.rows.MOST_NAMED", 10)
    (tmp_path / "bad.jsonl").write_text('{"question": "How?"}\n' + "x\n" * 50)
    store = a_store(tmp_path)
    settings = {"split": Split.POOL, "pool": PoolConfig(), "task": TaskConfig(), "progress": Silent()}
    report = ingest([tmp_path / "bad.jsonl"], store, **settings)
    assert (len(report.bad), report.bad.total, report.added[Split.POOL]) == (10, 50, 1)
    assert "bad rows: 50" in report.summary()
    assert MOST_NAMED >= 1000
    store.close()


@pytest.mark.parametrize("answer", ["9" * 400, "-" + "9" * 400, "1e999", "1" + "0" * 4000])
def test_a_number_that_no_float_holds_is_no_crash(answer: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"question": "How?", "answer": {answer}}}\n')
    (raw,) = read(tmp_path / "a.jsonl")
    if answer == "1e999":
        with pytest.raises(BadRow, match="finite"):
            checked(raw)
    else:
        assert checked(raw).answer == answer


# --- other files and servers ------------------------------------------------------------------------------------------


def a_dataset(folder: Path, **columns: list[object]) -> Path:
    datasets.Dataset.from_dict({"question": ["How many?"], **columns}).save_to_disk(folder)
    return folder


def changed(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


@pytest.mark.parametrize("way", ["above", "absolute", "link", "split"])
def test_a_dataset_folder_names_no_file_outside(way: str, tmp_path: Path) -> None:
    secret = a_dataset(tmp_path / "secret")
    arrow = next(secret.glob("*.arrow"))
    folder = a_dataset(tmp_path / "given")
    if way == "link":
        next(folder.glob("*.arrow")).unlink()
        (folder / "data-00000-of-00001.arrow").symlink_to(arrow)
    elif way == "split":
        (folder / "dataset_dict.json").write_text('{"splits": ["../secret"]}')
    else:
        name = str(arrow) if way == "absolute" else f"../secret/{arrow.name}"
        changed(folder / "state.json", lambda state: state.update(_data_files=[{"filename": name}]))
    with pytest.raises(BadRow, match="which is outside of the folder"):
        read(folder)
    assert len(read(secret)) == 1


def test_a_dataset_folder_that_was_moved_and_is_reached_by_a_link_is_read(tmp_path: Path) -> None:
    a_dataset(tmp_path / "first").rename(tmp_path / "second")
    (tmp_path / "third").symlink_to(tmp_path / "second")
    assert read(tmp_path / "third")[0].fields == {"question": "How many?"}


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_picture_in_a_dataset_is_not_fetched(tmp_path: Path) -> None:
    with counting() as (address, asked):
        folder = a_dataset(tmp_path / "given", context=["a"])
        pictures = pa.array(
            [{"bytes": None, "path": f"{address}/a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
        table = pa.table({"question": ["How many?"], "context": pictures})
        with pa.ipc.new_stream(next(folder.glob("*.arrow")), table.schema) as file:
            file.write_table(table)
        changed(folder / "dataset_info.json", lambda info: info["features"].update(context={"_type": "Image"}))  # type: ignore[index, attr-defined]
        (raw,) = read(folder)
    assert "column `context` holds struct" in str(raw.problem)
    assert asked == []


def test_a_class_that_a_dataset_does_not_name_is_a_bad_row(tmp_path: Path) -> None:
    folder = a_dataset(tmp_path / "given", answer=[7])
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    changed(folder / "dataset_info.json", lambda info: info["features"].update(answer=label))  # type: ignore[index, attr-defined]
    assert problems(folder) == ["`answer` is 7, which is none of the dataset's classes"]


def test_an_export_goes_through_no_link_and_names_no_file_by_an_item(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item(key) for key in KEYS])
    opened = queried(store, a_round(store), KEYS)
    for key in KEYS:
        decided(store, opened, key, DecisionKind.GOLD, a_reply(store, opened, key, steps=["one"], answer=1))
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    export(store, RUN, out, Wanted("hf"))
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "store.db", "store.db-wal", "store.db-shm"}
    (out / "data").rename(elsewhere)
    (out / "data").symlink_to(elsewhere)
    before = {path.name: path.stat().st_mtime_ns for path in elsewhere.iterdir()}
    with pytest.raises(PreceptorError, match="is a link, which may lead anywhere"):
        export(store, RUN, out, Wanted("hf"))
    assert {path.name: path.stat().st_mtime_ns for path in elsewhere.iterdir()} == before
    store.close()


KEYS = ["../../above", "/absolute", "..", "a/b", "C:\\x", "~", "%2e%2e%2f"]


@pytest.mark.parametrize("name", ["..", "../x", ".", "a/b", "", ".hidden", "x\n"])
def test_no_run_is_called_like_a_way_out_of_its_folder(name: str, tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    done = CliRunner().invoke(app, ["status", "--run", name, "--config", str(config)])
    assert done.exit_code == 1
    assert "is no name of a run" in str(done.exception)


# --- files that run ---------------------------------------------------------------------------------------------------


class Runs:
    """A pickle that leaves a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> object:
        return Path.touch, (self._trace,)


def load(model: Path, folder: Path | None = None) -> None:
    settings = StudentConfig.model_validate({"model": str(model), "lora_rank": 0})
    checkpoint.load_causal(folder, settings, model.parent / "cache", torch.float32)


def a_pickled_model(folder: Path, trace: Path) -> Path:
    tiny_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(trace)))
    return folder


def test_a_pickle_in_place_of_weights_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    with pytest.raises(StudentError, match="with weights as safetensors"):
        load(a_pickled_model(tmp_path / "model", trace))
    assert not trace.exists()
    pickle.loads((tmp_path / "model" / "pytorch_model.bin").read_bytes())
    assert trace.exists()


def test_adapters_in_a_pickle_are_refused_beside_other_weights(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    model, folder = tiny_model(tmp_path / "model"), tmp_path / "round-1"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}')
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Runs(trace)))
    (folder / "other.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    with pytest.raises(StudentError, match="the weights are not there"):
        load(model, folder)
    assert not trace.exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_does_not_run(known: bool, tmp_path: Path) -> None:
    model, trace = tiny_model(tmp_path / "model"), tmp_path / "it ran"
    (model / "modeling_odd.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass Odd: ...\n")
    odd = {"AutoConfig": "modeling_odd.Odd", "AutoModelForCausalLM": "modeling_odd.Odd"}

    def change(body: dict[str, object]) -> None:
        body["auto_map"] = odd
        body["model_type"] = body["model_type"] if known else "odd"

    changed(model / "config.json", change)
    if known:
        load(model)
    else:
        with pytest.raises(StudentError, match="cannot be loaded"):
            load(model)
    assert not trace.exists()
    assert Config().student.trust_remote_code is False


UNSAFE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def test_our_own_code_unpickles_nothing_and_evaluates_nothing() -> None:
    found = []
    for path in [path for folder in ("loop", "review", "connectors") for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(each.name for each in node.names)]
                found += [(path.name, name) for name in names if name.split(".")[0] in MODULES]
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                keys = {each.arg: ast.unparse(each.value) for each in node.keywords}
                bad = name in UNSAFE or name in ("torch.load", "np.load", "os.system")
                bad |= keys.get("shell") == "True" or keys.get("verify") == "False"
                bad |= keys.get("trust_remote_code") == "True" or keys.get("follow_redirects") == "True"
                found += [(path.name, name)] if bad else []
    assert found == []


# --- texts that steer a terminal --------------------------------------------------------------------------------------


def test_no_text_steers_the_terminal(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    text = "\x1b]0;owned\x07\x1b[2J How \u202emany\u202c?\x9b31m"
    (tmp_path / "pool.jsonl").write_text(json.dumps({"key": "q1", "question": text, "domain": text}) + "\n")
    CliRunner().invoke(app, ["ingest", str(tmp_path / "pool.jsonl"), "--split", "pool", "--config", str(config)])
    for words in (["history", "q1"], ["history", "q1", "--json"]):
        said = CliRunner().invoke(app, [*words, "--config", str(config)]).stdout
        assert "owned" in said
        assert not set(said) & set("\x1b\x07\x9b\u202e\u202c"), words
    assert "owned" in json.loads(said)["item"]["question"]
