"""What a reader does with the page, in headless Chromium: steps, quiz, gates, links, drawing, the lesson.

Numbers are compared in `test_browser.py`, words and colours in `test_page.py`.
"""

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from chromium import page_of
from PIL import Image

from tinyflamingo.data.images import MAX_PIXELS, prepare_picture
from tinyflamingo.data.video import load_video
from tinyflamingo.explorer import build

pytestmark = pytest.mark.posix  # the browser is driven over pipes

LANGUAGES = ["en", "zh"]
WIDTHS = [390, 1024, 1280, 1920]
NAMELESS = """[...document.querySelectorAll("button, input, select, textarea, summary, [role=img]")].filter((e) =>
  !e.getAttribute("aria-label") && !e.textContent.trim() && ![...e.labels || []].some((l) => l.textContent.trim())
  && !e.closest("[aria-hidden], dialog:not([open])")).map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    with page_of(chromium, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    """A function: opens the page with this text behind the # and waits for it."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_bytes(build.build_page())

    def go(state=""):
        page.go("about:blank")
        page.go(f"{path.as_uri()}#{state}")
        page.wait_for("document.documentElement.dataset.ready")
        return page

    return go


def click(page, selector):
    page.run(f"document.querySelector({json.dumps(selector)}).click()")
    settle(page)


def settle(page):
    """Wait until the page has drawn what was changed."""
    page.run("new Promise((ok) => requestAnimationFrame(() => requestAnimationFrame(ok)))")
    page.wait_for("NOW.said")


def text(page, name):
    return page.run(f"document.getElementById({json.dumps(name)}).innerText")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_control_has_a_name(language, opened):
    page = opened(f"lang={language}")
    assert page.run(NAMELESS) == []
    for tab in ("make", "draw", "file"):
        page.run(f"openPicker(0); document.querySelector('#picker-tab input[value={tab}]').click()")
        assert page.run(NAMELESS) == []
    assert page.complaints() == []


def test_the_language_changes_without_a_new_page(opened):
    page = opened("lang=en&m=step")
    page.run("document.querySelector('#lang input[value=zh]').focus()")
    click(page, "#lang input[value=zh]")
    assert page.run("document.documentElement.lang") == "zh-CN"
    page.wait_for("[...document.querySelectorAll('h2 span, h3')].every((h) => /[\\u4e00-\\u9fff]/.test(h.textContent))")
    assert page.run("document.activeElement.value") == "zh"
    assert page.complaints() == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(width, language, opened, page):
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    for state in ("", "lesson=2", "m=step&s=5", "m=quiz"):
        opened(f"lang={language}&{state}")
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), state


def test_the_steps_open_the_cells_that_phi_says(opened):
    page = opened("lang=en&m=step")
    tokens, R = page.run("NOW.tokens.length"), page.run("latents()")
    for t in range(tokens):
        phi = page.run(f"NOW.phi[{t}]")
        opening = page.run(f"$('mask').cells.filter((c) => c.t === {t} && c.matches('.open')).map((c) => c.m + 1)")
        assert opening == [phi] * R * (phi > 0)
        assert page.run(f"$('mask').cells.filter((c) => c.t > {t} && !c.matches('.later')).length") == 0
        if t + 1 < tokens:
            click(page, "[data-do=nextToken]")
    assert f"Token {tokens} of {tokens}" in text(page, "panel-step")


def test_the_quiz_hides_the_mask_and_names_the_first_mistake(opened):
    page = opened("lang=en&m=quiz&show=mask")
    assert page.run("$('mask').cells.length") == 0 and set(page.run("$('mask').phis.map((p) => p.textContent)")) == {
        "?"
    }
    click(page, "[data-do=quizCheck]")
    assert "token 7, “<image>”, picture 1" in text(page, "panel-quiz")  # the first tag: open, and nobody opened it
    page.run("document.querySelectorAll('.quiz').forEach((q) => NOW.phi[q.t] === q.m + 1 && q.click())")
    click(page, '[data-key="q13-0"]')
    click(page, "[data-do=quizCheck]")
    assert "token 14, “a”, picture 1" in text(page, "panel-quiz")  # one cell too many
    click(page, '[data-key="q13-0"]')
    click(page, "[data-do=quizCheck]")
    assert "All right" in text(page, "panel-quiz")


@pytest.mark.parametrize(
    "state, button, place", [("m=step&s=14", "nextToken", "S.step"), ("at=9", "followingToken", "S.at")]
)
def test_a_button_at_the_end_keeps_the_focus_and_does_nothing(state, button, place, opened):
    page = opened(f"lang=en&{state}")
    last = page.run(place)
    page.run(f"theButton({button!r}).focus()")
    click(page, f"[data-do={button}]")
    assert page.run(f"theButton({button!r}).ariaDisabled") == "true" and page.run(place) == last
    assert page.run("document.activeElement.dataset.do") == button


def test_nothing_plays_by_itself_with_reduced_motion(opened):
    page = opened("lang=en")
    motion = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.send("Emulation.setEmulatedMedia", features=[motion])
    try:
        for button in ("write", "play"):
            click(page, f"[data-do={button}]")
        assert page.run("[S.at, WRITING.timer, LOG.at, LOG.timer]") == [0, 0, 0, 0]
    finally:
        page.send("Emulation.setEmulatedMedia", features=[])
    click(page, "[data-do=write]")
    page.wait_for("S.at > 0")


def test_a_moved_gate_changes_the_answer_and_a_link_brings_it_back(opened):
    page = opened("lang=en")
    before = text(page, "gate-answer")
    click(page, "[data-do=zero]")
    assert text(page, "gate-answer") != before
    page.run("slide = (n, v) => { const e = document.querySelectorAll('.gate input')[n]; e.value = v; e.oninput(); }")
    page.run("slide(4, 0.55); slide(6, 0.63); change({ token: 8, broken: 'every' })")
    settle(page)
    shown = [text(page, name) for name in ("gate-answer", "chosen", "bars")]
    opened(page.run("location.hash.slice(1)"))
    assert [text(page, name) for name in ("gate-answer", "chosen", "bars")] == shown


def test_a_picture_of_a_link_that_does_not_exist_is_named(opened):
    page = opened("lang=en&p=<image>Output:&i=red_unicorn")
    assert "red_unicorn" in text(page, "trouble") and text(page, "gate-answer")


@pytest.mark.parametrize(
    "name",
    [
        "red_constructor", "constructor_circle", "red_star_turns-toString", "red_star_turns", "nine_red_circle",
        "zero_red_circle", "red_circle_above_blue_star_extra", "five_red_three", "red_three_plus_circle", "red", "",
        "red_circle_huge", "red_circle_small_nowhere", "red_three_small", "red_circle_plus_blue_star", "rgb:AAAA",
        "rgb:", "rgb:!", "rgb:" + "A" * 4100, "rgb:" + "A" * 4096 * 33,
    ],
)  # fmt: skip
def test_other_words_are_no_picture(name, opened):
    assert opened("lang=en").run(f"World.knows({json.dumps(name)})") is False


def test_all_names_of_the_picker_are_pictures(opened):
    names = "red_circle_small_top-left red_circle_above_blue_star red_three red_three_plus_four three_red_circle "
    names += "red_star_turns-blue red_star_moves-left red_star_vanishes"
    assert opened("lang=en").run(f"{json.dumps(names.split())}.every(World.knows)")


def test_more_cells_than_the_page_can_draw_are_refused_in_words(opened):
    page = opened("lang=en&p=" + "<image>Output: a red circle. " * 60)
    assert "30000" in text(page, "trouble") and page.run("$('prompt').value").count("<image>") == 60
    page = opened("lang=en&p=" + "<image>" * 400)
    assert "30000" in text(page, "trouble")
    click(page, "[data-do=chapterExample]")
    page.wait_for("$('trouble').hidden")


def test_views_of_no_prompt_cannot_be_used(opened):
    """What they show belongs to no prompt, or to the one before."""
    inert = "SECTIONS.filter((view) => $(`view-${view}`).inert)"
    page = opened("lang=en&p=" + "<image>" * 400)
    assert page.run(inert) == ["mask", "next", "gates", "look", "inside"]
    click(page, "[data-do=chapterExample]")
    page.wait_for("$('trouble').hidden")
    assert page.run(inert) == [] and page.complaints() == []


@pytest.mark.parametrize("seed", ["-3", "1e400", "0", "abc", "7.9", "-1e400"])
def test_any_seed_of_a_link_draws_tokens_that_an_answer_may_hold(seed, opened):
    page = opened(f"lang=en&c=lot&T=3&seed={seed}")
    assert page.run("S.seed >= 1 && S.seed % 1 === 0")
    assert page.run("NOW.said.tokens.filter((id) => [0, 1, 3, 4].includes(id))") == []
    assert 0 < page.run("lottery(S.seed)()") < 1


def test_a_place_behind_the_end_is_the_end(opened):
    page = opened("lang=en&at=900&m=step&s=900&t=5000&g=,,,,,,,&show=mask,next,mask")
    before = page.run("[S.at, S.step, S.gates, S.show]")
    assert before == [
        page.run("NOW.said.logits.length - 1"),
        page.run("NOW.tokens.length - 1"),
        None,
        "mask,next",
    ]
    click(page, "[data-do=previousToken]")
    click(page, "[data-do=back]")
    assert page.run("[S.at, S.step]") == [before[0] - 1, before[1] - 1]


def test_another_file_is_refused_in_words(opened):
    page = opened("lang=en")
    page.run(
        "(() => { const t = new DataTransfer(); t.items.add(new File(['x'], 'film.mp4', { type: 'video/mp4' }));"
        "document.ondrop({ preventDefault() {}, target: document.body, dataTransfer: t }); })()"
    )
    page.wait_for("!$('trouble').hidden")
    assert "film.mp4" in text(page, "trouble")


def give(page, files, n=0):
    """Drop files {name: bytes} on card n, and wait for what the page makes of them."""
    made = ", ".join(
        f"new File([Uint8Array.from(atob('{base64.b64encode(data).decode()}'), (c) => c.charCodeAt(0))], '{name}', "
        f"{{ type: 'image/{name.split('.')[-1]}' }})"
        for name, data in files.items()
    )
    page.run(f"""(async () => {{
      const data = new DataTransfer(), target = document.querySelectorAll(".card[data-n]")[{n}];
      for (const file of [{made}]) data.items.add(file);
      target.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, bubbles: true, cancelable: true }}));
    }})()""")


def frames_of(page, n=0):
    return np.array(page.run(f"framesOf({n}).map((rgb) => [...rgb])"), np.uint8).reshape(-1, 32, 32, 3)


def encoded(frames, kind, **more):
    """The bytes of a file with these frames."""
    file, pictures = io.BytesIO(), [Image.fromarray(frame) for frame in frames]
    pictures[0].save(file, kind, save_all=len(pictures) > 1, append_images=pictures[1:], **more)
    return file.getvalue()


def coloured(n):
    """n frames of 40 x 30 pixels, each of a colour of its own with a white bar."""
    frames = np.zeros((n, 40, 30, 3), np.uint8)
    frames += np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None] * np.array([7, 3, 5], np.uint8)
    frames[:, :, 10:14] = 255
    return frames


@pytest.mark.parametrize("milliseconds", [[1000] * 3, [400] * 8, [2500, 300, 300, 1200]])
def test_an_animated_gif_becomes_the_clip_that_complete_takes(milliseconds, opened, tmp_path):
    """One frame a second, as `load_video` samples it; fitted to one level of 255."""
    data = encoded(coloured(len(milliseconds)), "gif", duration=milliseconds, loop=0, disposal=1)
    (tmp_path / "a.gif").write_bytes(data)
    expected = load_video(tmp_path / "a.gif")
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    give(page, {"a.gif": data})
    page.wait_for(f"framesOf(0).length === {len(expected)} && S.pictures[0] !== 'blue_star'")
    assert np.abs(frames_of(page).astype(int) - expected).max() <= 1
    settle(page)
    before = text(page, "gate-answer")
    opened(page.run("location.hash.slice(1)"))  # the link carries the clip
    assert text(page, "gate-answer") == before and len(frames_of(page)) == len(expected)
    assert page.complaints() == []


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_picture_whose_name_says_another_type_is_taken(name, opened):
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    red = np.full((40, 40, 3), (222, 30, 38), np.uint8)
    give(page, {name: encoded([red], "jpeg")})
    page.wait_for("S.pictures[0] !== 'blue_star'")
    assert np.abs(frames_of(page).astype(int) - red[:32, :32]).max() <= 3  # JPEG is not exact


def black_png(side):
    """A black picture of side x side pixels with one bit each, in few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + side // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_an_enormous_picture_is_refused_before_it_is_decoded(opened):
    """20,000 x 20,000 pixels would be 1.6 GB; a browser that decodes them does not answer for minutes."""
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    give(page, {"large.png": black_png(20_000)})
    page.wait_for("!$('trouble').hidden")
    assert f"large.png has more than {MAX_PIXELS // 10**6} million pixels" in text(page, "trouble")
    assert page.run("S.pictures[0]") == "blue_star" and page.complaints() == []


def test_several_pictures_become_the_frames_of_a_clip_in_the_order_of_their_names(opened, tmp_path):
    frames = coloured(3)
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    give(page, {f"frame{n}.png": encoded([frames[i]], "png") for n, i in ((10, 2), (9, 1), (1, 0))})
    page.wait_for("framesOf(0).length === 3")
    assert np.abs(frames_of(page).astype(int) - np.stack([prepare_picture(frame) for frame in frames])).max() <= 1


def test_more_frames_than_a_clip_may_have_are_refused_in_words(opened):
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    give(page, {"long.gif": encoded(coloured(2), "gif", duration=[40_000, 1000])})
    page.wait_for("!$('trouble').hidden")
    assert "at most 32 frames" in text(page, "trouble") and page.run("S.pictures[0]") == "blue_star"


def test_a_browser_that_cannot_take_animations_apart_says_so(opened):
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    page.run("delete window.ImageDecoder")
    give(page, {"a.gif": encoded(coloured(3), "gif", duration=1000)})
    page.wait_for("S.pictures[0] !== 'blue_star' && !$('trouble').hidden")
    assert "only its first frame" in text(page, "trouble") and len(frames_of(page)) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_inside_follows_its_controls_and_its_link(language, opened):
    page = opened(f"lang={language}&p=<image>Question: what happens? Answer:&i=green_heart_moves-left&show=inside")
    assert page.run("$('frames').querySelectorAll('tbody tr').length") == 8
    first = text(page, "taken")
    for selector in ("#layer [value='0']", "#rhead [value='2']", "#latent [value='5']"):
        click(page, selector)
    page.run("$('channel').value = 7; $('channel').oninput({ target: $('channel') })")
    page.wait_for(f"$('taken').innerText !== {json.dumps(first)} && S.channel === 7")
    settle(page)
    page.wait_for("/7/.test($('channel-out').textContent)")
    shown = [text(page, name) for name in ("frames", "taken", "channel-out")]
    assert page.run("location.hash").endswith("&l=1&k=3&r=6&f=7&show=inside")
    opened(page.run("location.hash.slice(1)"))
    assert [text(page, name) for name in ("frames", "taken", "channel-out")] == shown
    assert page.run(NAMELESS) == [] and page.complaints() == []


def test_inside_says_that_there_is_no_picture(opened):
    page = opened("lang=en&p=a red circle is found&show=inside")
    assert not page.run("$('inside').offsetHeight") and "no picture" in text(page, "view-inside")


def test_a_closed_outline_is_filled(opened):
    page = opened("lang=en&p=<image>Output:&i=blue_star")
    page.run("openPicker(0); document.querySelector('#picker-tab input[value=draw]').click()")
    page.run("""(() => {
      const board = document.querySelector(".board"), box = board.getBoundingClientRect(), turns = 60;
      board.setPointerCapture = () => {};
      const at = (type, i) => {
        const angle = i / turns * 6.28, clientX = box.left + 128 + 80 * Math.sin(angle);
        const clientY = box.top + 128 - 80 * Math.cos(angle);
        board.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX, clientY }));
      };
      at("pointerdown", 0);
      for (let i = 1; i <= turns; i++) at("pointermove", i);
      at("pointerup", turns);
    })()""")
    click(page, "[data-do=useDrawn]")
    assert text(page, "gate-answer") == "a red circle."


def test_pictures_are_added_moved_and_removed_with_their_text(opened):
    page = opened("lang=en&p=<image>one.<image>two.&i=red_circle,blue_star")
    click(page, '[data-key="moveRight0"]')
    assert page.run("[S.prompt, S.pictures.join()]") == ["<image>two.<image>one.", "blue_star,red_circle"]
    click(page, '[data-key="removePicture0"]')
    assert page.run("[S.prompt, S.pictures.join()]") == ["<image>one.", "red_circle"]
    click(page, "[data-do=addShot]")
    assert page.run("S.prompt.split('<image>').length") == 3 and page.run("S.pictures[1]") == "red_circle"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lesson_asks_before_it_shows(language, opened):
    page = opened(f"lang={language}")
    click(page, "[data-do=lesson]")
    for step in range(1, 11):
        assert f"{step}" in text(page, "h-lesson") and not page.run("S.revealed")
        click(page, "[data-key=answer0]")
        assert page.run("S.revealed") and text(page, "path-reveal")
        click(page, "[data-do=pathNext]") if step < 10 else click(page, "[data-do=pathLeave]")
    assert page.run("S.lesson") == 0 and page.complaints() == []


def test_the_log_is_played_back_with_the_signs_of_the_end(opened):
    page = opened("lang=en")
    page.run("showMoment(1)")
    settle(page)
    assert text(page, "log-out") == "step 0"
    assert page.run("S.gates.flat().map(Math.abs)") == page.run("model.gateLog[0].gates.flat()")
    assert page.run("S.gates.flat().map(Math.sign)") == page.run("trained().flat().map(Math.sign)")


def test_the_page_says_whether_the_signs_of_the_log_are_sure(opened):
    """The sizes of the log decide it; here they are read back, and then one gate comes near 0."""
    page = opened("lang=en")
    sizes = np.array(page.run("model.gateLog.map((row) => row.gates.flat())"))
    least, move = sizes.min(), np.abs(np.diff(sizes, axis=0)).max()
    assert least > move and f"No gate comes nearer to 0 than {least:.2f}" in text(page, "sign-says")
    assert f"by more than {move:.2f}" in text(page, "sign-says")
    page.run("model.gateLog[9].gates[0][0] = 0.004; drawPlayback()")
    assert "as near to 0 as 0.00, so it may have crossed 0" in text(page, "sign-says")


def test_a_prompt_that_is_too_long_is_refused_in_words(opened):
    page = opened("lang=zh")
    page.run("change({ prompt: 'a red circle. '.repeat(400) })")
    page.wait_for("!$('trouble').hidden")
    assert "1024" in text(page, "trouble") and page.run("$('prompt').value.length") > 5000
    click(page, "[data-do=chapterExample]")
    page.wait_for("$('trouble').hidden")


def test_examples_are_counted_up(opened):
    page = opened("lang=en&p=<image>lofa.<image>dimu.<image>&i=red_hourglass,blue_drop,green_hourglass")
    click(page, "[data-do=shots]")
    p = page.run("Flamingo.probabilities(NOW.result.logits)[biggest(NOW.result.logits)]")
    none, *_, two = page.run("document.querySelector('#shots svg').ariaLabel").split(": ")[1].split(", ")
    assert float(none) < 0.1 < 0.9 < float(two) and float(two) == round(p, 2)


def test_the_link_past_the_header_keeps_the_state(opened):
    page = opened("lang=en&p=<image>Output:&i=red_circle")
    click(page, ".skip")
    assert page.run("[document.activeElement.id, S.prompt]") == ["main", "<image>Output:"]


def test_covered_cells_say_what_the_answer_needs(opened):
    page = opened("lang=en&p=<image>Output: a red&i=red_circle_small_top-left&show=look")
    click(page, "[data-do=lookCover]")
    page.wait_for("/from .* to /.test($('look-says').textContent)")
    needed = page.run("COVER.after.indexOf(Math.min(...COVER.after))")
    assert needed in (0, 1, 4, 5)  # of 4 x 4 cells, those of the corner where the circle is
    assert f"row {needed // 4 + 1}, column {needed % 4 + 1}; covering it" in text(page, "look-says")
