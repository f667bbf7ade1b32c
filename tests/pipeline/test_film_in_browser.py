"""The page of a film in a real browser: Debian's chromium, or another one of its family on the PATH."""

import re

import cv2
import numpy as np
import pytest
import skimage.data

from data_tools.media.audio import write_wav
from data_tools.media.playable import write_playable
from data_tools.media.write import write_video
from pipeline.report.figures import jpeg
from pipeline.timeline.answers import Prediction
from pipeline.timeline.page import write_film_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`${alert(3)}\u202e &amp;"
# (start_s, end_s, words, predicted, score of anger); joy has 1 - that. The second and third overlap.
TALK = (
    (1.0, 3.0, "Where have you been?", ["anger"], 0.8),
    (5.0, 8.0, "At sea, as I told you.", ["joy"], 0.3),
    (7.0, 9.5, "You did not.", ["anger"], 0.6),
    (14.0, 16.0, "So be it.", [], 0.45),
)

pytestmark = pytest.mark.browser


@pytest.fixture
def look(browser):
    """(page's path, width) -> the page, opened. At the end: no error, no dialog, and only local files asked for."""
    contexts, trouble, asked = [], [], []

    def look(path, width=1400, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    look.trouble = trouble
    yield look
    for context in contexts:
        context.close()
    assert trouble == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with film.page.mp4 and talk.wav of 20 s, which chromium plays."""
    folder = tmp_path_factory.mktemp("pages")
    write_wav(folder / "talk.wav", np.sin(np.arange(20 * 8000) / 9).astype(np.float32) / 9, 8000)
    frame = cv2.resize(skimage.data.astronaut()[:300, 60:460], (160, 120))
    frames = (np.roll(frame, 4 * number, 1) for number in range(100))
    write_video(folder / "film.avi", frames, (160, 120), 5, "mpeg4", audio=folder / "talk.wav")
    write_playable(folder / "film.avi", folder, "film.page")
    return folder


def write(page, playable, talk=TALK, length_s=20.0, name="film.avi", emotions=("anger", "joy"), words=()):
    """words: (start_s, text) of the first segment's."""
    first, second = emotions
    segments = [
        {
            "start_s": start_s,
            "end_s": end_s,
            "text": text,
            "scores": {first: score, second: 1 - score},
            "predicted": [first if each == "anger" else second for each in predicted],
            "absent": ["no face: none found in 3 sampled frames"],
            "no_face_share": None,
        }
        for start_s, end_s, text, predicted, score in talk
    ]
    segments[0]["words"] = [{"start_s": at, "end_s": at + 0.1, "text": text} for at, text in words]
    face = jpeg(cv2.resize(skimage.data.astronaut()[20:200, 140:320], (48, 48)))
    prediction = Prediction(
        name,
        {first: 0.5, second: 0.5},
        [first],
        cut_by="speech",
        segments=segments,
        summary={"duration_s": length_s, "thresholds": {first: 0.5, second: 0.6}},
        faces=[face if number % 2 == 0 else None for number in range(len(segments))],
    )
    about = {"run": "run", "task": "multi-label", "notice": "STAND-IN"}
    write_film_page(page, name, playable, "", about, prediction)
    return page


@pytest.fixture(scope="module")
def film_page(folder):
    return write(folder / "film.html", folder / "film.page.mp4")


def now(page):
    """The numbers of the segments that are marked in the list."""
    return page.evaluate(
        "[...document.querySelectorAll('.row')].flatMap((row, n) => row.classList.contains('now') ? [n] : [])"
    )


def wait_until(page, condition):
    """Not by `wait_for_function`: the page's policy forbids to run texts as programs."""
    for _ in range(4000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never came true: {condition}")


def time_of(page):
    return page.evaluate("document.getElementById('player').currentTime")


def ready(page):
    wait_until(page, "document.getElementById('player').readyState >= 2")
    return page


def test_a_press_on_a_segment_jumps_the_film(film_page, look):
    page = ready(look(film_page))
    for number, (start_s, *_) in enumerate(TALK):
        page.locator(".row").nth(number).click()
        wait_until(page, "!document.getElementById('player').seeking")
        assert time_of(page) == pytest.approx(start_s, abs=0.05)
        assert now(page)[-1] == number


def test_a_press_on_the_curves_jumps_the_film(film_page, look):
    page = ready(look(film_page))
    box = page.locator("#inner").bounding_box()
    for time_s, segments in ((2.0, [0]), (7.5, [1, 2]), (12.0, [])):
        page.mouse.click(box["x"] + box["width"] * time_s / 20, box["y"] + 80)
        wait_until(page, "!document.getElementById('player').seeking")
        assert time_of(page) == pytest.approx(time_s, abs=0.05)
        assert now(page) == segments


def test_the_segment_under_the_play_head_is_marked_in_list_and_curves(film_page, look):
    page = ready(look(film_page))
    page.evaluate("document.getElementById('player').currentTime = 15")
    wait_until(page, "document.querySelectorAll('.row')[3].classList.contains('now')")
    assert now(page) == [3]
    assert page.locator("[aria-current=true]").count() == 1
    inner, mark = page.locator("#inner").bounding_box(), page.locator("#mark").bounding_box()
    assert (mark["x"] - inner["x"]) / inner["width"] == pytest.approx(14 / 20, abs=0.01)
    assert mark["width"] / inner["width"] == pytest.approx(2 / 20, abs=0.01)
    head = page.locator("#head").bounding_box()
    assert (head["x"] + 1 - inner["x"]) / inner["width"] == pytest.approx(15 / 20, abs=0.01)
    assert page.locator(".name output").all_inner_texts() == ["0.45", "0.55"]
    page.evaluate("document.getElementById('player').currentTime = 11")
    wait_until(page, "!document.querySelector('.row.now')")
    assert page.locator("#mark").is_hidden()


def test_the_mark_moves_while_the_film_plays(film_page, look):
    page = ready(look(film_page))
    page.evaluate(
        "player = document.getElementById('player'); player.muted = true; player.currentTime = 4.7; player.play()"
    )
    wait_until(page, "document.querySelectorAll('.row')[1].classList.contains('now')")
    assert time_of(page) >= 5.0 - 0.05


def test_the_word_that_is_said_is_marked(folder, look):
    words = [(1.0, "Where"), (1.4, "have"), (1.9, "you"), (2.3, "been?")]
    path = write(folder / "words.html", folder / "film.page.mp4", words=words)
    page = ready(look(path))
    for time_s, word in ((1.5, ["have"]), (2.8, ["been?"]), (6.0, [])):
        page.evaluate(f"document.getElementById('player').currentTime = {time_s}")
        wait_until(page, f"document.getElementById('clock').textContent.startsWith('0:0{time_s}')")
        assert page.locator(".at").all_inner_texts() == word


def test_the_keys_reach_everything(film_page, look):
    page = ready(look(film_page))
    page.locator("#scroller").focus()
    for key, expected in (("PageDown", 1.0), ("PageDown", 5.0), ("ArrowRight", 6.0), ("PageUp", 5.0), ("Home", 0.0)):
        page.keyboard.press(key)
        assert time_of(page) == pytest.approx(expected, abs=0.05)
    assert page.locator("#scroller").get_attribute("aria-valuetext") == "0:00.0"
    page.locator(".row").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert time_of(page) == pytest.approx(7.0, abs=0.05)
    # The list is one stop of the tab key, however long it is.
    assert page.locator(".row[tabindex='0']").count() == 1


def test_an_emotion_lists_its_segments(film_page, look):
    page = look(film_page)
    page.locator("button.name").first.click()
    assert page.locator(".row:visible .words").all_inner_texts() == [TALK[0][2], TALK[2][2]]
    assert "2 of 4" in page.locator("#count").inner_text()
    assert page.locator(".gap:visible").count() == 0
    page.locator("button.name").first.click()
    assert page.locator(".row:visible").count() == 4


def test_the_curves_have_the_scores(film_page, look):
    """Each lane: a top line at the score of each segment, from its start to its end."""
    page = look(film_page)
    for lane, name in enumerate(("anger", "joy")):
        d = page.locator(".lane").nth(lane).locator("path.top").get_attribute("d")
        drawn = [tuple(map(float, numbers)) for numbers in re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)", d)]
        expected = [(start, 1 - (score if name == "anger" else 1 - score), end) for start, end, *_, score in TALK]
        assert np.allclose(drawn, expected, atol=1e-3)
        assert page.locator(".lane").nth(lane).locator("line.limit").count() == 1


def test_hostile_words_and_names_run_nothing(folder, look):
    talk = [(1.0, 3.0, HOSTILE, ["anger"], 0.8), (4.0, 9.0, HOSTILE, [], 0.2)]
    page = write(folder / "hostile.html", folder / "film.page.mp4", talk, name=HOSTILE, emotions=(HOSTILE, "joy"))
    page = ready(look(page, width=400))
    page.locator(".row").nth(1).click()
    page.locator("#inner").hover()
    page.locator("button.name").first.click()
    assert page.locator(".words").first.inner_text() == HOSTILE
    assert page.locator("script").count() == 2
    # Nothing that words could smuggle in would be run: the policy knows the page's own script alone.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'ran = 1'}))")
    assert page.evaluate("typeof ran") == "undefined"
    assert "Content Security Policy" in look.trouble.pop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(folder, film_page, look, width, scheme):
    long = write(
        folder / "long.html", None, [(0.5, 2.0, "m" * 300, ["anger"], 0.7)], name="x" * 200, emotions=("a" * 60, "joy")
    )
    for path in (film_page, long):
        page = look(path, width, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in page.locator("section, video, table, .chart, header").all():
            box = part.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width + 0.5


def test_a_sound_has_a_page_too(folder, look):
    page = ready(look(write(folder / "sound.html", folder / "talk.wav", name="talk.wav")))
    assert page.locator("video").count() == 0
    page.locator(".row").nth(1).click()
    assert time_of(page) == pytest.approx(5.0, abs=0.05)


def test_a_film_of_four_hours_and_one_of_a_single_segment(folder, look):
    hours = [(2.9 * n, 2.9 * n + 2.4, f"Sentence {n}.", ["joy"] * (n % 2), 0.5 + 0.4 * (n % 2)) for n in range(4900)]
    page = look(write(folder / "hours.html", None, hours, length_s=4 * 3600.0))
    assert page.locator(".row").count() == 4900
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    few = page.locator("#faces img").count()
    assert few <= 1400 / 40
    for _ in range(4):
        page.locator("#in").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    assert few < page.locator("#faces img").count() <= 16 * 1400 / 40
    page.locator("#scroller").focus()
    page.keyboard.press("End")
    page.keyboard.press("PageUp")
    assert now(page) == [4899]
    # Curves and list have gone along.
    assert page.evaluate("document.getElementById('list').scrollTop") > 10_000
    box, head = page.locator("#scroller").bounding_box(), page.locator("#head").bounding_box()
    assert box["x"] <= head["x"] <= box["x"] + box["width"]

    page = look(write(folder / "short.html", folder / "film.page.mp4", [(0.0, 20.0, "All of it.", [], 0.1)]))
    page.locator(".row").click()
    assert now(page) == [0]
