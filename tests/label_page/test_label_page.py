"""The labelling page as a person meets it: a real server, a real browser, a keyboard."""

from __future__ import annotations

import csv
import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, chromium, environment, grave, label_server, open_page, save

QUICK = ("--method", "probe", "--folds", "2", "--threads", "1")
"""Options of `adapt` for a test's patience."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path)
    return tmp_path


def rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream))


def begin(
    browser: Any, url: str, name: str = "ana", size: tuple[int, int] = DESKTOP, latency: float = 0
) -> Any:
    page = open_page(browser, size)
    if latency:
        # In the page, so that many requests can be on their way at a time.
        page.add_init_script(
            f"const ask = fetch; fetch = (...a) => new Promise(r => setTimeout(r, {500 * latency}))"
            f".then(() => ask(...a)).then(f => new Promise(r => setTimeout(() => r(f), {500 * latency})));"
        )
    page.goto(url)
    page.wait_for_selector("#who[open]")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#facts dd")
    return page


def press(page: Any, key: str) -> None:
    """Answer, and wait for another candidate to appear."""
    shown = page.text_content("#facts dd")
    page.keyboard.press(key)
    page.wait_for_function(
        "id => document.querySelector('#facts dd').textContent !== id", arg=shown, polling=20
    )


def saved(page: Any) -> None:
    """Wait until every answer is on the server's disk."""
    page.wait_for_function("() => document.querySelector('#saving').textContent === 'saved'")


def says(page: Any, model: str) -> None:
    """Wait for a model's opinion."""
    page.wait_for_function(
        "name => document.querySelector('#model-says').textContent.includes(name)", arg=model
    )


def end(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does; the table is then written."""
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def order(page: Any) -> list[int]:
    found: list[int] = page.evaluate(
        "fetch('api/session?labeller=ana').then(r => r.json()).then(s => s.order)"
    )
    return found


def test_twenty_by_keyboard_a_kill_and_on(browser: Any, folder: Path) -> None:
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        assert page.text_content("#model-says") == ""
        for done in range(20):
            press(page, "rb"[done % 2])
        saved(page)
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.keyboard.press("r")
        page.wait_for_function(
            "() => /^(NOT saved yet: 1 answer|Answers cannot be saved now)/"
            ".test(document.querySelector('#alarm').textContent)"
        )
        assert page.problems == []
        page.close()
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        assert page.text_content("#count") == "20 of 30"
        for key in ("u", "Backspace", "1"):
            press(page, key)
        page.click("#panel-button")
        with page.expect_download() as download:
            page.click("#table")
        exported = folder / "exported.csv"
        download.value.save_as(exported)
        assert page.problems == []
        page.close()
        end(process)
    found = rows(exported)
    assert len(found) == 21
    assert found == rows(folder / "my.csv")
    assert {row["label"] for row in found} == {"real", "bogus"}
    assert {row["path"] for row in found} == {"s.npz"}
    assert {row["labeller"] for row in found} == {"ana"}

    pytest.importorskip("torch")
    command = [sys.executable, "-m", "transientnet", "adapt", "--labels", exported.name, "-o", "mine"]
    done = subprocess.run(
        [*command, *QUICK], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "mine" / "model.onnx").is_file()
    assert "torchvision" not in done.stderr


def test_what_is_not_saved_stays_announced_until_it_is(browser: Any, folder: Path) -> None:
    """A poll that succeeds, and the next answer, must not wipe what is said of another request."""
    with label_server(folder) as (_, url):
        page = begin(browser, url)
        page.route("**/api/answers", lambda route: route.abort())
        page.keyboard.press("r")
        alarm = "document.querySelector('#alarm')"
        page.wait_for_function(f"() => {alarm}.textContent.startsWith('NOT saved yet: 1 answer')")
        with page.expect_response("**/api/progress*"):
            pass
        page.evaluate("new Promise(requestAnimationFrame)")
        assert page.text_content("#alarm").startswith("NOT saved yet: 1 answer")
        page.unroute("**/api/answers")
        saved(page)
        assert page.is_hidden("#alarm")
        refusal = {"status": 400, "json": {"error": "no such class."}}
        page.route("**/api/answers", lambda route: route.fulfill(**refusal))
        refused = page.text_content("#facts dd")
        press(page, "b")
        page.wait_for_function(f"() => {alarm}.textContent.startsWith('NOT saved: ')")
        page.unroute("**/api/answers")
        press(page, "r")
        saved(page)
        assert page.text_content("#alarm span").startswith(f"NOT saved: {refused}. no such class.")
        page.click("#alarm button")
        assert page.is_hidden("#alarm")
        assert page.problems == []
        page.close()


def test_fast_keys_answer_one_painted_stamp_each_and_none_is_lost(browser: Any, folder: Path) -> None:
    """Ten keys a second against a server half a second away."""
    with label_server(folder) as (process, url):
        page = begin(browser, url, latency=0.5)
        page.evaluate(
            """() => {
                window.asked = [];
                const note = () => {
                    const id = document.querySelector('#facts dd').textContent;
                    if (asked.at(-1) !== id) asked.push(id);
                };
                new MutationObserver(note).observe(document.querySelector('#facts'), {childList: true});
                note();
            }"""
        )
        keys = "rbrrbrbbrbrrbrb"
        page.evaluate(
            """keys => new Promise(resolve => {
                [...keys].forEach((key, k) => setTimeout(() => {
                    document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
                    if (k === keys.length - 1) resolve();
                }, 100 * k));
            })""",
            keys,
        )
        page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('15 ')")
        saved(page)
        shown = page.evaluate("asked")
        page.close()
        end(process)
    found = {row["id"]: row["label"] for row in rows(folder / "my.csv")}
    assert len(found) == len(keys)
    assert [found[name] for name in shown[: len(keys)]] == [{"r": "real", "b": "bogus"}[key] for key in keys]


def test_train_now_puts_the_queue_in_the_new_model_s_order(browser: Any, folder: Path) -> None:
    pytest.importorskip("torch")
    with label_server(folder, "--train-options", " ".join(QUICK)) as (_, url):
        page = begin(browser, url)
        for done in range(8):
            press(page, "rb"[done % 2])
        before = order(page)
        page.click("#panel-button")
        page.click("#train")
        stage = r"() => /^Training: [a-z].*\. Labelling can go on\.$/.test"
        page.wait_for_function(f"{stage}(document.querySelector('#train-state').textContent)", timeout=60_000)
        assert page.is_visible("#train-bar")
        page.wait_for_function(
            "() => document.querySelector('#train-state').textContent.startsWith('Trained. ')", timeout=60_000
        )
        assert "my-model@" in page.text_content("#train-state")
        assert page.is_hidden("#train-bar")
        assert page.is_enabled("#train")
        after = order(page)
        assert after != before
        assert sorted(after) == sorted(before)
        assert "new order" in page.text_content("#said")
        page.keyboard.press("Escape")
        page.keyboard.press("m")
        press(page, "r")
        says(page, "my-model@")
        assert page.problems == []
        page.close()
    assert (folder / "my-model" / "model.onnx").is_file()


def test_looking_at_a_candidate_by_keyboard(browser: Any, folder: Path) -> None:
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        picture = "document.querySelector('#stamp-science').toDataURL()"
        seen = [page.evaluate(picture)]
        for stretch in ("zscale", "linear", "asinh"):
            page.keyboard.press("c")
            assert page.input_value("#stretch") == stretch
            seen.append(page.evaluate(picture))
        assert len(set(seen)) == 3
        assert seen[3] == seen[0]
        page.keyboard.press("+")
        assert page.text_content("#zoom") == "2×"
        assert page.evaluate(picture) != seen[0]
        page.keyboard.press("-")
        assert page.evaluate(picture) == seen[0]
        page.keyboard.press("x")
        assert "reference" in page.text_content("#caption-science")
        assert page.evaluate(picture) == page.evaluate(picture.replace("science", "reference"))
        page.keyboard.press("x")
        page.keyboard.press("n")
        page.keyboard.type("two sources")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.activeElement === document.body")
        assert page.text_content("#model-says") == ""
        page.keyboard.press("m")
        assert page.text_content("#model-says") == ""
        first = page.text_content("#facts dd")
        press(page, "u")
        says(page, f"{first}, realbogus@")
        press(page, "ArrowLeft")
        assert page.text_content("#facts dd") == first
        press(page, "r")
        assert page.problems == []
        page.close()
        end(process)
    answers = {row["id"]: row for row in rows(folder / "my.csv")}
    assert answers[first] | {"label": "real", "note": "two sources", "model_seen": "yes"} == answers[first]


def test_several_thousand_scroll_and_two_agree(browser: Any, folder: Path) -> None:
    save(folder, 2000)
    with label_server(folder, "--random-share", "1", "--fwhm", "4.7") as (_, url):
        ana, bob = begin(browser, url, "ana"), begin(browser, url, "bob", PHONE)
        for key in "rrbb":
            press(ana, key)
        for key in "rrb":
            press(bob, key)
        bob.click("#panel-button")
        bob.wait_for_function(
            "() => document.querySelector('#agreement').textContent.includes('3 of 3')", polling=50
        )
        assert "kappa 1.00" in bob.text_content("#agreement")
        bob.close()
        ana.keyboard.press("g")
        ana.wait_for_selector(".tile")
        ana.keyboard.press("End")
        ana.wait_for_selector("#tile-1999")
        slowest = ana.evaluate("""async () => {
          const box = document.querySelector('#grid'); let slowest = 0, last = performance.now();
          for (let k = 0; k < 40; k++) {
            box.scrollTop = (k * 7919) % box.scrollHeight;
            await new Promise(requestAnimationFrame);
            slowest = Math.max(slowest, performance.now() - last); last = performance.now();
          }
          return slowest;
        }""")
        assert ana.locator(".tile").count() < 150
        assert slowest < 3000
        assert ana.problems == []
        ana.close()


def test_strangers_get_nothing_from_the_running_server(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with label_server(folder) as (_, url):
        at = urlsplit(url)
        assert at.hostname == "127.0.0.1"

        def status(path: str, method: str = "GET", **headers: str) -> int:
            # http.client sends the path as it is, dots and all.
            connection = http.client.HTTPConnection("127.0.0.1", at.port or 0, timeout=10)
            connection.request(
                method, path, headers={name.replace("_", "-"): v for name, v in headers.items()}
            )
            answer = connection.getresponse()
            assert b"root:" not in answer.read()
            connection.close()
            return answer.status

        assert status(at.path) == 200
        assert status(f"{at.path}api/table") == 200
        nearly = at.path[:-2] + ("y/" if at.path.endswith("x/") else "x/")
        for path in ("/", "/api/table", "/app.js", nearly, "//", f"/x{at.path}"):
            assert status(path) == 403, path
        for path in ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "link", "s.npz", "my.csv", "%00"):
            assert status(at.path + path) in (403, 404), path
        assert status(at.path, host="evil.example") == 403
        assert status(f"{at.path}api/answer", "POST", origin="http://evil.example") == 403
        assert status(f"{at.path}api/session?labeller=a", sec_fetch_site="cross-site") == 403


@pytest.mark.site
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(browser: Any, folder: Path, size: tuple[int, int]) -> None:
    with label_server(folder) as (_, url):
        page = open_page(browser, size, url)
        page.wait_for_selector("#who[open]")
        assert grave(page) == [], "who"
        page.close()
        page = begin(browser, url, size=size)
        for action in ("", "g", "#panel-button", "#help-button"):
            if action.startswith("#"):
                page.keyboard.press("Escape")
                page.click(action)
            elif action:
                page.keyboard.press(action)
                page.wait_for_selector(".tile canvas")
            assert grave(page) == [], action
        assert all(request.startswith((url, "data:")) for request in page.requests)
        page.close()


def test_the_grid_labels_by_keyboard(browser: Any, folder: Path) -> None:
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        page.keyboard.press("g")
        page.wait_for_selector("#tile-0[aria-selected=true]")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        chosen = page.get_attribute("#grid", "aria-activedescendant")
        page.keyboard.press("r")
        page.wait_for_function("id => document.querySelector(`#${id} b`).textContent === 'real'", arg=chosen)
        page.keyboard.press("Enter")
        page.wait_for_selector("#one:not([hidden])")
        assert page.problems == []
        page.close()
        end(process)
    assert [row["label"] for row in rows(folder / "my.csv")] == ["real"]


def labels(folder: Path) -> dict[str, str]:
    return {row["id"]: row["label"] for row in rows(folder / "my.csv")}


def test_several_are_labelled_at_once_in_the_grid(browser: Any, folder: Path) -> None:
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        page.keyboard.press("g")
        page.wait_for_selector("#tile-0 canvas")
        ids = [page.text_content(f"#tile-{k} span") for k in range(9)]
        page.click("#tile-0")
        page.click("#tile-3", modifiers=["Shift"])
        assert page.text_content("#selected") == "4 selected"
        assert page.get_attribute("#tile-2", "aria-selected") == "true"
        page.keyboard.press("r")
        page.wait_for_function("() => document.querySelector('#tile-2 b').textContent === 'real'")
        assert page.text_content("#selected") == ""
        page.click("#pick")
        page.click("#tile-5")
        page.click("#tile-7")
        page.click("#answers .k0")
        page.click("#pick")
        page.click("#tile-8")
        page.keyboard.press("Shift+ArrowLeft")
        assert page.text_content("#selected") == "2 selected"
        saved(page)
        assert page.problems == []
        page.close()
        end(process)
    assert labels(folder) == dict.fromkeys(ids[:4], "real") | {ids[5]: "bogus", ids[7]: "bogus"}


def test_a_drag_selects_a_range(browser: Any, folder: Path) -> None:
    with label_server(folder) as (process, url):
        page = begin(browser, url)
        page.keyboard.press("g")
        page.wait_for_selector("#tile-6 canvas")
        ids = [page.text_content(f"#tile-{k} span") for k in range(7)]
        page.hover("#tile-1")
        page.mouse.down()
        page.hover("#tile-4")
        page.mouse.up()
        assert page.text_content("#selected") == "4 selected"
        assert page.get_attribute("#tile-5", "aria-selected") == "false"
        page.keyboard.press("r")
        page.wait_for_function("() => document.querySelector('#tile-4 b').textContent === 'real'")
        page.click("#tile-0")
        assert page.text_content("#selected") == ""
        saved(page)
        assert page.problems == []
        page.close()
        end(process)
    assert labels(folder) == dict.fromkeys(ids[1:5], "real")


def test_a_finger_that_rests_and_moves_selects_a_range(browser: Any, folder: Path) -> None:
    with label_server(folder) as (_, url):
        page = begin(browser, url, size=PHONE)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
        page.click("#mode")
        page.wait_for_selector("#tile-3 canvas")

        def touch(kind: str, tile: int | None = None) -> None:
            box = None if tile is None else page.locator(f"#tile-{tile}").bounding_box()
            points = [] if box is None else [{"x": box["x"] + 50, "y": box["y"] + 30}]
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 0)
        page.wait_for_function("() => document.querySelector('#selected').textContent === '1 selected'")
        touch("touchMove", 1)
        touch("touchMove", 2)
        touch("touchEnd")
        assert page.text_content("#selected") == "3 selected"
        # A finger that moves at once scrolls, and selects nothing.
        touch("touchStart", 2)
        touch("touchMove", 1)
        touch("touchMove", 0)
        touch("touchEnd")
        assert page.text_content("#selected") == "3 selected"
        assert page.problems == []
        page.close()


def test_the_light_curve_of_a_packet_is_drawn(browser: Any, shared_data: Path, tmp_path: Path) -> None:
    packet = shared_data / "packets" / "ztf" / "20231012_2475433850415015006.avro"
    with label_server(tmp_path, source=str(packet)) as (_, url):
        page = begin(browser, url)
        page.wait_for_selector("#light-curve:not([hidden]) svg")
        said = page.get_attribute("#light-curve svg", "aria-label")
        assert said.startswith("Light curve: ")
        assert "detections and" in said
        points = page.locator("#light-curve g title").all_text_contents()
        assert any("(this candidate)" in point and "18.07" in point for point in points)
        assert any("forced photometry" in point for point in points)
        assert {"g", "r", "upper limit"} <= set(
            page.locator("#light-curve figcaption span").all_text_contents()
        )
        assert grave(page) == []
        assert page.problems == []
        page.close()


SWIPE = """way => {
  const stage = document.querySelector('#stage');
  const send = (kind, x) => stage.dispatchEvent(
    new PointerEvent(kind, {pointerType: 'touch', isPrimary: true, clientX: x, clientY: 200, bubbles: true}));
  send('pointerdown', 200); send('pointerup', 200 + 120 * way);
}"""


def test_a_phone_swipes_and_the_pace_is_shown(browser: Any, folder: Path) -> None:
    with label_server(folder, "--goal", "20") as (process, url):
        page = begin(browser, url, size=PHONE)
        assert page.text_content("#pace") == "20 to the goal"
        shown = []
        for way in (1, -1, 1, 1, -1, 1):
            shown.append(page.text_content("#facts dd"))
            page.evaluate(SWIPE, way)
            page.wait_for_function(
                "id => document.querySelector('#facts dd').textContent !== id", arg=shown[-1], polling=20
            )
        page.wait_for_function(
            "() => /^[0-9]+ a minute, [0-9]+ minutes? left to 20$/.test("
            "document.querySelector('#pace').textContent)"
        )
        saved(page)
        page.close()
        end(process)
    found = labels(folder)
    assert [found[name] for name in shown] == ["real", "bogus", "real", "real", "bogus", "real"]


def test_keys_links_and_the_field_guide(browser: Any, folder: Path) -> None:
    stamps = np.load(folder / "s.npz")
    np.savez(folder / "s.npz", **stamps, ra=np.full(30, 10.25), dec=np.full(30, -5.5))
    link = "Chart=https://charts.example/?at={ra},{dec}&name={id}"
    with label_server(folder, "--keys", "real=j,bogus=k", "--link", link) as (process, url):
        page = begin(browser, url)
        first = page.text_content("#facts dd")
        if "RA, Dec" in page.text_content("#facts"):
            assert "10.25000 -5.50000" in page.text_content("#facts")
            address = page.get_attribute("#facts a", "href")
            assert address == f"https://charts.example/?at=10.25,-5.5&name={first}"
            page.click("#facts .small")
            page.wait_for_function(
                "() => document.querySelector('#said').textContent.endsWith('10.25000 -5.50000')"
            )
        page.keyboard.press("f")
        page.wait_for_selector("#guide[open]")
        assert "difference" in page.text_content("#guide")
        drawn = "[...document.querySelectorAll('#guide img')].every(i => i.complete && i.naturalWidth)"
        page.wait_for_function(f"() => {drawn}")
        assert grave(page) == []
        page.keyboard.press("Escape")
        press(page, "j")
        saved(page)
        assert page.problems == []
        page.close()
        end(process)
    assert labels(folder) == {first: "real"}


def test_the_learning_curve_is_shown_after_labels(browser: Any, folder: Path) -> None:
    with label_server(folder) as (_, url):
        page = begin(browser, url)
        for done in range(24):
            press(page, "rb"[done % 2])
        page.click("#panel-button")
        page.wait_for_selector("#curve:not([hidden]) circle", timeout=60_000)
        assert "Refitted on" in page.text_content("#worth")
        assert grave(page) == []
        assert page.problems == []
        page.close()


def test_a_shared_page_answers_to_this_machine_s_address_alone(folder: Path) -> None:
    with label_server(folder, "--share") as (_, url):
        at = urlsplit(url)

        def status(path: str, host: str | None = None) -> int:
            connection = http.client.HTTPConnection(at.hostname or "", at.port or 0, timeout=10)
            connection.request("GET", path, headers={} if host is None else {"host": host})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        assert status(at.path) == 200
        assert status("/") == 403
        assert status(at.path, "evil.example") == 403
