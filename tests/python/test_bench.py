"""``python -m gevent.bench``: measures, shows, writes, draws."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.ours


def bench(*args):
    return subprocess.run(
        [sys.executable, "-m", "gevent.bench", *args],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    files = str(folder / "figures.json"), str(folder / "figures.svg")
    loops = os.environ.get("GEVENT_LOOP", "epoll") + ",asyncio,nothing"
    cases = "switch,tim,thread,echo-64x1,files,files-"
    done = bench(
        "--seconds", "2", "--loops", loops, "--cases", cases, "--json", files[0], "--plot", files[1]
    )
    assert done.returncode == 0, done.stderr
    with open(files[0]) as file:
        return done, json.load(file), files


def test_every_case_has_a_figure_of_everyone(measured):
    _, data, _ = measured
    cases = ["switch", "timers", "thread", "echo-64x1", "files", "files-cold", "files-pool"]
    assert sorted(data["cases"]) == sorted(cases)
    own = next(iter(data["contestants"]))
    for name, case in data["cases"].items():
        assert set(case["best"]) == {own, "asyncio"}, name
        assert all(value > 0 for value in case["best"].values())
    assert data["contestants"][own]["backend"] == own
    assert list(data["absent"]) == ["nothing"]
    assert "nothing" in data["absent"]["nothing"]
    assert data["machine"]["processors"] >= 1
    assert data["how"]["rounds"] >= 1


def test_the_table_names_all_and_marks_the_best(measured):
    done, data, _ = measured
    lines = done.stdout.splitlines()
    head = next(n for n, line in enumerate(lines) if line.split()[-1:] == ["asyncio"])
    rows = lines[head + 1 :]
    assert [row.split()[0] for row in rows] == list(data["cases"])
    assert all(row.count("*") >= 1 for row in rows)
    assert "not here: nothing" in done.stdout
    assert "measured" in done.stderr


def test_the_plot_is_a_picture_of_all_figures(measured):
    root = ElementTree.parse(measured[2][1]).getroot()
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for case in measured[1]["cases"]:
        assert case in texts
    assert texts.count("asyncio") == len(measured[1]["cases"])


def test_figures_can_be_shown_again(measured):
    again = bench("--from-json", measured[2][0])
    assert again.returncode == 0
    assert again.stdout == measured[0].stdout


def test_arguments():
    listed = bench("--list")
    assert "echo-1kx1000" in listed.stdout
    wrong = bench("--cases", "sleeping")
    assert wrong.returncode == 2
    assert "no such case: sleeping" in wrong.stderr
    nobody = bench("--loops", "nothing")
    assert nobody.returncode == 2
    assert "nothing to measure" in nobody.stderr


def test_a_child_that_dies_is_reported_and_does_not_stop_the_rest():
    from gevent.bench.runner import Contestant, measure

    good = Contestant("good", sys.executable, "asyncio")
    bad = Contestant("bad", sys.executable, "gevent", "nothing")
    away = Contestant("away", "/no/such/python", "gevent")
    people = [(one, {}) for one in (good, bad, away)]
    results, failed, how = measure(people, ["switch"], 0.5, lambda *_: None)
    assert how["rounds"] >= 1
    assert len(results["switch"]["good"]) == how["rounds"]
    assert {f[:2] for f in failed} == {("switch", "bad"), ("switch", "away")}
    assert any("nothing" in f[2] for f in failed), failed
    assert any("No such file" in f[2] for f in failed)


def test_numbers():
    from gevent.bench.report import number

    shown = [number(n) for n in (3, 999, 1000, 12345, 99999, 999700, 1234567, 12e6)]
    assert shown == ["3", "999", "1.00k", "12.3k", "100k", "1.00M", "1.23M", "12.0M"]


def test_importing_gevent_does_not_load_it():
    code = "import sys, gevent, gevent.monkey; print([m for m in sys.modules if 'bench' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
