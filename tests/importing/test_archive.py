"""Tests that an archive is judged before torch reads it: hostile and damaged ones never run, and never escape."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.networks.program.archive import add_extras, is_archive, judge
from tests.importing.support import archive_of, exported, small_network

MODEL = "models/model.json"
NONSENSE: list[Any] = [None, 0, -1, 2**70, "", "x" * 1000, [], {}, [[]], {"as_int": "a"}, 1.5]


def rewritten(change: Callable[[dict[str, bytes]], None], data: bytes | None = None) -> bytes:
    """Return the archive with changed entries."""
    with zipfile.ZipFile(io.BytesIO(data or archive_of())) as archive:
        entries = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(entries)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"folder/{name}", content)
    return sink.getvalue()


def with_program(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the archive with a changed program."""

    def apply(entries: dict[str, bytes]) -> None:
        program = json.loads(entries[MODEL])
        change(program)
        entries[MODEL] = json.dumps(program).encode()

    return rewritten(apply)


def expressions(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a program that hold a symbolic expression."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [each for child in children for each in expressions(child)]
    return [value, *found] if isinstance(value, dict) and "expr_str" in value else found


class Evil:
    """Object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_judged_archive_computes_the_same() -> None:
    judged = judge(archive_of())
    assert judged.description is None and judged.torch_version.startswith(torch.__version__.split("+")[0])
    program = torch.export.load(io.BytesIO(judged.data)).module(check_guards=False)
    images = torch.randn(1, 3, 61, 83)
    torch.testing.assert_close(program(images), small_network()(images), rtol=0, atol=0)
    # What was judged once is judged alike again, and equal inputs give equal bytes.
    again = judge(add_extras(judged.data, {"a": 1}, b"labels"))
    assert (again.description, again.golden, again.data) == ({"a": 1}, b"labels", judged.data)


def test_pickles_are_dropped_or_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    sink = io.BytesIO()
    torch.save(torch.zeros(1), sink)
    evil = pickle.dumps(Evil(made))

    def in_samples(entries: dict[str, bytes]) -> None:
        entries["data/sample_inputs/model.pt"] = evil

    # torch would unpickle the sample inputs; the judged archive has others.
    torch.export.load(io.BytesIO(judge(rewritten(in_samples)).data))
    assert not made.exists()

    def in_weights(entries: dict[str, bytes]) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(entries[name])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        entries[f"data/weights/{first['path_name']}"] = evil
        entries[name] = json.dumps(config).encode()

    with pytest.raises(CheckpointError, match="would be unpickled"):
        judge(rewritten(in_weights))

    def in_objects(entries: dict[str, bytes]) -> None:
        entries["data/constants/custom_obj_0"] = evil

    with pytest.raises(CheckpointError, match="custom_obj_0' of the archive is unknown"):
        judge(rewritten(in_objects))
    assert not made.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0]",
        "open('/etc/passwd')",
        "Symbol('s0', positive=exec('1'))",
        "Pow(Integer(9), Integer(999999999))",
        "Pow(Pow(Symbol('s0'), Integer(8)), Integer(8))",
        "Integer(10**100)",
        "lambda: 0",
        "Add(Symbol('s0'), *[1])",
        "Mul(Symbol(name='s0'), 2)",
        "Symbol('x y')",
        "9" * 30_000,
        "(" * 5_000,
    ],
)
def test_expressions_outside_the_grammar_are_refused(expression: str) -> None:
    def change(program: dict[str, Any]) -> None:
        expressions(program)[0]["expr_str"] = expression

    assert judge(with_program(lambda program: None))
    with pytest.raises(CheckpointError):
        judge(with_program(change))


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.higher_order.cond",
        "torch.ops.mylib.anything.default",
        "torch.hub.load",
        "os.system",
        "_operator.attrgetter",
    ],
)
def test_operators_that_are_not_on_the_list_are_refused(target: str) -> None:
    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(CheckpointError, match="not on the list"):
        judge(with_program(change))


def test_code_and_objects_as_arguments_are_refused() -> None:
    for argument in ("as_graph", "as_custom_obj", "as_operator"):

        def change(program: dict[str, Any], argument: str = argument) -> None:
            program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {argument: {"name": "x"}}

        with pytest.raises(CheckpointError, match=argument):
            judge(with_program(change))


def test_what_names_code_is_dropped() -> None:
    def change(program: dict[str, Any]) -> None:
        program["guards_code"] = ["__import__('os').abort()"]
        program["graph_module"]["graph"]["nodes"][0]["metadata"] = {"source_fn_stack": "x,torch.hub.load"}

    clean = judge(with_program(change)).data
    assert b"abort" not in clean and b"hub.load" not in clean


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entries: entries.update({"extra/other": b""}), "'extra/other' of the archive is unknown"),
        (lambda entries: entries.update({"models/second.json": b"{}"}), "another program"),
        (lambda entries: entries.pop(MODEL), "no program"),
        (lambda entries: entries.update({"archive_version": b"7"}), "version is unknown"),
        (lambda entries: entries.pop("data/weights/model_weights_config.json"), "lacks data/weights"),
        (lambda entries: entries.update({"data/weights/weight_0": b""}), "needs more than its 0 bytes"),
        (lambda entries: entries.update({"data/aotinductor/model/x.so": b"\x7fELF"}), "is unknown"),
        (lambda entries: entries.update({MODEL: b"[" * 100_000}), "models/model.json"),
    ],
)
def test_other_archives_are_refused(change: Callable[[dict[str, bytes]], None], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        judge(rewritten(change))


def test_an_archive_that_was_not_imported_is_refused_with_the_remedy() -> None:
    with pytest.raises(CheckpointError, match=r"jobs/import_network\.py"):
        from_bytes(archive_of())


def test_other_zip_files_are_no_archives() -> None:
    sink = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, sink)
    assert not is_archive(sink.getvalue()) and not is_archive(b"PK\x03\x04") and is_archive(archive_of())
    with pytest.raises(CheckpointError, match="pickle"):
        from_bytes(sink.getvalue())


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_escapes_as_another_error(data: st.DataObject) -> None:
    whole = bytearray(archive_of())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        judge(bytes(whole))
    except CheckpointError as error:
        assert len(str(error)) < 500


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_nonsense_in_the_program_never_escapes_as_another_error(data: st.DataObject) -> None:
    """Replace any value in the JSON of the program by another one."""

    def change(program: dict[str, Any]) -> None:
        place: Any = program
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 9)):
                place = place[key]
                continue
            place[key] = data.draw(
                st.sampled_from([None, 0, -1, 2**70, "", "x" * 1000, [], {}, [[]], {"as_int": "a"}, 1.5])
            )
            return

    try:
        judge(with_program(change))
    except CheckpointError as error:
        assert len(str(error)) < 500


def test_random_numbers_cannot_be_imported() -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + torch.rand_like(images)

    with pytest.raises(CheckpointError, match=r"rand_like.*not on the list"):
        judge(exported(Noisy()))
