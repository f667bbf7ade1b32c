"""The app: a film is dropped in a real browser, and its page looked at; limits, foreign names, what it refuses."""

import os
import socket
import sys
import threading

import cv2
import numpy as np
import pytest
import skimage.data

from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from pipeline.app import HERE, Limits, Studio, app, build_server
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder with film.avi of 4 s, long.wav of 40 s, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    for name, seconds in (("sound.wav", 4), ("long.wav", 40)):
        write_wav(folder / name, np.sin(np.arange(seconds * 8000) / 9).astype(np.float32) / 9, 8000)
    frame = cv2.resize(skimage.data.astronaut()[:300, 60:460], (160, 120))
    write_video(folder / "film.avi", [frame] * 20, (160, 120), 5, "mpeg4", audio=folder / "sound.wav")
    (folder / "<b>.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture(scope="module")
def studio(trained, tmp_path_factory):
    """The app's model, with films of at most 2 MB and 20 s."""
    return Studio(trained[0], tmp_path_factory.mktemp("scratch"), None, Limits(2, 20), "cpu")


@pytest.fixture(scope="module")
def server(studio):
    pytest.importorskip("gradio", reason="gradio is not installed (extra app)")
    before = dict(os.environ)
    yield build_server(studio, HERE)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def address(server):
    """Where the app listens."""
    import uvicorn

    listening = socket.create_server((HERE, 0))
    running = uvicorn.Server(uvicorn.Config(server, log_level="error"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://{HERE}:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def page(browser, address):
    """The app in a browser; nothing but the app itself may have been asked for."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(120_000)
    context.grant_permissions(["camera", "microphone"], origin=address)
    page, asked, trouble = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#film input[type=file]", state="attached")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert trouble == []


def drop(page, film):
    page.locator("#film input[type=file]").set_input_files(film)
    page.get_by_text(film.name).wait_for()
    page.get_by_role("button", name="Score the film").click()


@pytest.mark.browser
def test_a_film_that_is_dropped_gets_its_page_and_files(page, films):
    assert "stand-in data" in page.locator("body").inner_text()
    drop(page, films / "film.avi")
    frame = page.frame_locator("#film-page")
    frame.locator(".row").wait_for()
    assert frame.locator("h1").inner_text() == "film.avi"
    frame.locator("#scroller").focus()
    page.keyboard.press("End")
    time_s = frame.locator("#player").evaluate("player => player.currentTime")
    assert time_s == pytest.approx(4, abs=0.2)
    with page.expect_download() as started:
        page.get_by_role("link", name="film.segments.csv").click()
    assert started.value.path().read_text(encoding="utf-8").startswith("start_s,end_s,text,predicted")


@pytest.mark.browser
def test_a_film_that_is_too_long_or_too_large_is_refused_with_the_limit(page, films):
    drop(page, films / "long.wav")
    page.get_by_text("the film lasts 40.0 s, the limit is 20 s (--max-length-s)").wait_for()
    large = films / "large.wav"
    write_wav(large, np.zeros(1_100_000, np.float32), 16_000)
    page.reload()
    page.locator("#film input[type=file]").set_input_files(large)
    page.get_by_text("exceed the maximum allowed size").wait_for()


@pytest.mark.browser
def test_a_recording_of_the_webcam_is_scored(page):
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_text("Click to Access Webcam").click()
    record = page.locator("button[aria-label='start recording']")
    # A busy machine has nothing encoded yet after a second: then it is recorded again, for longer.
    for seconds in (2, 5, 10):
        record.wait_for()
        record.click()
        record.filter(has_text="Stop").wait_for()
        page.wait_for_timeout(1000 * seconds)
        with page.expect_response(lambda response: "/upload" in response.url):
            record.click()
        page.get_by_role("button", name="Score the recording").click()
        page.locator("#film-page, .problem").wait_for()
        if page.locator("#film-page").count():
            assert page.frame_locator("#film-page").locator("h1").inner_text() == "sample.webm"
            return
        # The test camera shows no face, and its beeps may fall beside the recording: that is no film to score.
        reason = page.locator(".problem").inner_text()
        if "no face: none found" in reason:
            return
        assert "the film is empty" in reason
        page.get_by_role("button", name="Clear").click()
        page.get_by_text("Click to Access Webcam").click()
    raise AssertionError("every recording was empty")


def test_a_name_that_a_stranger_leads_here_is_refused(server):
    from starlette.testclient import TestClient

    assert TestClient(server, base_url=f"http://{HERE}").get("/").status_code == 200
    assert TestClient(server, base_url="http://a.stranger.example").get("/").status_code == 400
    here = TestClient(server, base_url="http://localhost")
    policy = here.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    for path in ("/films/a/b", "/films/..%2F..%2Fetc/passwd", "/films/a/..%2F..%2Fetc%2Fpasswd"):
        assert here.get(path).status_code == 404


def test_the_files_of_a_film_are_served_under_an_address_that_cannot_be_guessed(server, studio, films):
    from starlette.testclient import TestClient

    shown = []
    answer = studio.answer(films / "sound.wav", None, lambda share, text: shown.append((share, text)))
    assert shown[-1] == (1.0, "predict: 4 of 4 s of film")
    token = answer.split('src="films/')[1].split("/")[0]
    assert len(token) >= 20
    here = TestClient(server, base_url="http://localhost")
    assert "<audio" in here.get(f"/films/{token}/sound.html").text
    assert here.get(f"/films/{token}/sound.page.wav").content == (films / "sound.wav").read_bytes()
    assert here.get(f"/films/{token}/.lock").status_code == 404
    assert here.get("/films/other/sound.html").status_code == 404


def test_what_is_no_film_is_an_error_without_markup(studio, films):
    answer = studio.answer(films / "<b>.mp4", None, lambda share, text: None)
    assert 'role="alert"' in answer
    assert "&lt;b&gt;.mp4" in answer
    assert "<b>" not in answer


def test_limits_name_what_was_given(films):
    assert Limits(100, 100).refuses(films / "film.avi") == ""
    assert Limits(0.001, 100).refuses(films / "film.avi").startswith("the film has 0.")
    assert Limits(100, 3).refuses(films / "sound.wav") == "the film lasts 4.0 s, the limit is 3 s (--max-length-s)"


def test_an_address_that_is_taken_is_named(trained):
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen at {HERE}:{port}: .*--port"):
            app(trained[0], HERE, port, None, 1, 1, "cpu", QUIET)


def test_without_gradio_the_extra_is_named(studio, monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"emotion-pipeline\[app\]"):
        build_server(studio, HERE)
