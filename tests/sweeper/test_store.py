"""The store: records round-trip, and folders that are not stores are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.records import RungRecord
from sweeper.store import Store
from trainables.errors import UserError
from trainables.files import write_json
from trainables.scores.protocol import Score
from trainables.spec import TrialSpec

SPEC = TrialSpec(role="teacher", dataset="mnist5k", d=2, channels=1, d_discriminator=2)


def rung(updates: int, protocol: str = "p", fid: float = 1.0) -> RungRecord:
    return RungRecord(updates, 0.5, {}, {"fid": Score(mean=fid, std=None, n=5, protocol=protocol)}, False)


def test_reading_a_missing_store_creates_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "runs").sweeps() == []
    assert not (tmp_path / "runs").exists()


def test_rung_records_are_read_in_order_of_updates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(SPEC, rung=rung(30))
    store.add(SPEC, rung=rung(10))
    assert store.require(SPEC.signature).spec == SPEC
    assert [r.updates for r in store.require(SPEC.signature).rungs] == [10, 30]


def test_a_score_of_another_protocol_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(SPEC, rung=rung(10, "n=5"))
    assert store.require(SPEC.signature).rung(10, "n=5")
    assert store.require(SPEC.signature).rung(10, "n=50") is None


def test_records_of_different_protocols_are_both_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(SPEC, rung=rung(10, "n=5", fid=1.0))
    store.add(SPEC, rung=rung(10, "n=50", fid=2.0))
    store.add(SPEC, rung=rung(10, "n=5", fid=3.0))
    record = store.require(SPEC.signature)
    assert [record.rung(10, p).scores["fid"]["mean"] for p in ("n=5", "n=50")] == [3.0, 2.0]  # type: ignore[union-attr]


def test_a_lock_file_without_a_store_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "driver.lock").touch()
    Store(tmp_path)


def test_a_corrupt_record_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(SPEC)
    (tmp_path / "trials" / SPEC.signature / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"record\.json is corrupt"):
        store.require(SPEC.signature)


def test_a_second_driver_gets_an_error_that_names_the_first(tmp_path: Path) -> None:
    with Store(tmp_path / "runs").lock(), pytest.raises(UserError, match=r"in use by process \d+ on"):  # noqa: SIM117
        with Store(tmp_path / "runs").lock():
            pass


def test_a_driver_that_lost_its_claim_writes_nothing_more(tmp_path: Path) -> None:
    """A command that was suspended, while another host took its claim. So do the processes of its jobs."""
    store = Store(tmp_path / "runs")
    with store.lock():
        token = store.token
        Store(store.root, token).add(SPEC)
        before = (store.root / "trials" / SPEC.signature / "record.json").read_bytes()
        claim = store.root / "driver.claim"
        lines = [
            f"{line}2" if line.startswith(("host=", "token=")) else line for line in claim.read_text().splitlines()
        ]
        claim.unlink()
        claim.write_text("\n".join(lines) + "\n")
        for writer in (store, Store(store.root, token)):
            with pytest.raises(UserError, match=r"has lost .*: process \d+ on .* has it now; nothing more is written"):
                writer.add(SPEC, rung=rung(10))
            writer.save_live("x", {})
            assert not store.live("x").exists()
    assert (store.root / "trials" / SPEC.signature / "record.json").read_bytes() == before
    assert claim.exists(), "the claim of the other one stays"


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "store.json", {"version": 99})
    with pytest.raises(UserError, match="store of version 99, and this sweeper reads version 1"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json"])
def test_a_corrupt_version_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"store\.json is corrupt .*; restore it from a backup, or name another folder"):
        Store(tmp_path)


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not a store"):
        Store(tmp_path)


def test_an_unknown_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trial abc"):
        Store(tmp_path).require("abc")


def test_the_bank_is_in_sweeper_cache_if_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "runs")
    assert store.bank("t").is_relative_to(store.root)
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "scratch"))
    assert store.bank("t") == tmp_path / "scratch" / "bank" / "t"


OLD = Path(__file__).with_name("store_before") / "store"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0}, "eta"),
        ({"eta": 1.5}, "eta"),
        ({"rungs": []}, "rungs"),
        ({"name": "../../escaped"}, "name"),
        ({"dataset": "../x"}, "dataset"),
        ({"features": "os:system"}, "features"),
        ({"name": "another"}, "holds the sweep another"),
        ({"colour": "red"}, "colour"),
        ({"protocols": {}}, "protocols"),
        ({"command": "x\x1b[2J"}, "command"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_an_error_that_names_file_and_field(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    shutil.copytree(OLD, tmp_path / "runs")
    path = tmp_path / "runs" / "sweeps" / "mnist5k-teachers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"mnist5k-teachers\.json .*{message}"):
        Store(tmp_path / "runs").sweeps()


def test_a_record_of_another_trial_and_a_missing_teacher_sweep_are_errors(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    first, second, *_ = (manifest := store.require_sweep("mnist5k-teachers")).signatures
    shutil.copy(tmp_path / "runs/trials" / first / "record.json", tmp_path / "runs/trials" / second / "record.json")
    with pytest.raises(UserError, match=f"{second}/record.json holds the trial {first}"):
        store.require(second)
    with pytest.raises(UserError, match="holds no sweep none"):
        store.require_sweep("none")
    assert manifest.role == "teacher"


@pytest.mark.parametrize("place", ["", "store.json", "sweeps/new.json", "trials/x", "new.html"])
def test_pages_and_exports_are_not_written_among_the_store_s_files(place: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    with pytest.raises(UserError, match="is among the store's own files"):
        store.check_output(tmp_path / "runs" / place)
    store.check_output(tmp_path / "runs" / "reports" / "x.html")
    store.check_output(tmp_path / "x.html")
