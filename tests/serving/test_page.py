"""The page at `/`, in a real browser on a real server."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tasks.core.api_keys import create_key
from tasks.core.bundle import Bundle
from tasks.core.transforms import CategoryColumn, TableTransform
from tests.browser import Tab
from tests.serving.conftest import Served, Start

ANSWER = ".panel:not([hidden]) .try section"
WINNER = f"document.querySelector('{ANSWER} .winner:not(.soft)').textContent"
COMMAND = "document.querySelector('.panel:not([hidden]) .command').textContent"
FAILURE = "document.querySelector('.panel:not([hidden]) .try .failure b').parentElement.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with Tab.open(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    """One that nothing went wrong in, to the end of the test."""
    browser.errors.clear()
    browser.screen(1280, 900)
    yield browser
    assert browser.errors == []
    browser.go("about:blank")


def show(tab: Tab, client: httpx.Client, model: str) -> None:
    # From another page, as a hash alone loads nothing anew.
    tab.go("about:blank")
    tab.go(f"{client.base_url}#{model}")
    tab.wait(f"document.title.startsWith('{model} ') && document.querySelector('.panel:not([hidden]) h2')")


def answered_bars(tab: Tab) -> dict[str, float]:
    """What the bars say, from the first to the last."""
    tab.wait(WINNER)
    lines = tab.value(f"[...document.querySelectorAll('{ANSWER} .bars li')].map((line) => line.innerText.split('\\n'))")
    return {label: float(share.removesuffix(" %")) for label, share in lines}


def predicted(client: httpx.Client, model: str, instance: object) -> dict[str, float]:
    reply = client.post(f"/v1/models/{model}/predict", json={"instances": [instance]}).json()
    return {label: round(100 * share, 1) for label, share in reply["predictions"][0]["probabilities"].items()}


def test_it_lists_the_models_and_what_is_wrong_with_them(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "broken")
    listed = tab.value("[...document.querySelectorAll('nav a')].map((link) => link.innerText.split('\\n'))")
    assert listed == [
        ["broken", "not ready"],
        ["marks", "version 1"],
        ["moods", "version 1"],
        ["people", "version 3"],
        ["writer", "version 2"],
    ]
    problem = next(model["problem"] for model in client.get("/v1/models").json()["models"] if model["name"] == "broken")
    assert problem[1:] in tab.value("document.querySelector('.panel:not([hidden]) .failure').textContent")
    assert tab.wait("document.querySelector('#state').textContent.includes('ready') && document.querySelector('#state').textContent") == (
        "4 of 5 ready"
    )


def test_a_text_is_answered_and_drawn(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "moods")
    tab.type(".panel:not([hidden]) textarea", "What a bad day!")
    tab.click(".panel:not([hidden]) button.main")
    assert tab.wait(WINNER) == "bad"
    bars = answered_bars(tab)
    assert list(bars) == ["bad", "good"]
    assert bars == predicted(client, "moods", "What a bad day!")
    widths = tab.value(f"[...document.querySelectorAll('{ANSWER} .fill')].map((fill) => fill.style.width)")
    assert [round(float(width.removesuffix("%")), 1) for width in widths] == list(bars.values())


def test_a_row_is_filled_in_from_its_schema_and_answered(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "people")
    options = tab.value("[...document.querySelectorAll('select option')].map((option) => option.textContent)")
    assert options == ["blue", "it's red", "another value …"]
    tab.type("input[type=number]", "41.5")
    # The height may be empty, and the color is chosen as a keyboard does it.
    tab.value("document.querySelectorAll('input[type=number]')[1].focus()")
    tab.value("document.activeElement.value = ''")
    tab.value("document.querySelector('select').focus()")
    tab.press("ArrowDown")
    tab.click(".panel:not([hidden]) button.main")
    assert answered_bars(tab) == predicted(client, "people", {"age": 41.5, "height": None, "color": "it's red"})


def test_an_image_is_drawn_and_answered(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "marks")
    x, y, width, height = tab.place(".panel:not([hidden]) canvas")
    tab.drag([(x + share * width, y + share * height) for share in (0.2, 0.4, 0.6, 0.8)])
    tab.wait(WINNER)
    drawn = json.loads(tab.value(COMMAND).rpartition(" -d ")[2].strip("'"))["instances"][0]
    assert answered_bars(tab) == predicted(client, "marks", drawn)
    assert answered_bars(tab) != predicted(client, "marks", [[0] * 4] * 4)


def test_an_image_file_is_answered_and_the_command_sends_the_same(tab: Tab, client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "it's grey.png"
    Image.new("L", (9, 5), 20).save(path)
    show(tab, client, "marks")
    tab.choose_file(".panel:not([hidden]) input[type=file]", path)
    bars = answered_bars(tab)
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    ran = subprocess.run(["sh", "-c", tab.value(COMMAND)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert bars == {label: round(100 * share, 1) for label, share in json.loads(ran.stdout)["predictions"][0]["probabilities"].items()}


def test_a_text_is_continued_as_it_comes(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "writer")
    tab.type(".panel:not([hidden]) textarea", "All:\nSpeak")
    for place, value in enumerate(("40", "0.7", "5")):
        tab.type(f".panel:not([hidden]) .field:nth-child({place + 1}) > input", value)
    tab.click(".panel:not([hidden]) button.main")
    assert tab.wait(f"document.querySelector('{ANSWER} .told').textContent.match(/^40 tokens in .*/)?.[0]").endswith("version 2")
    call = {"prompt": "All:\nSpeak", "max_tokens": 40, "temperature": 0.7, "seed": 5}
    expected = client.post("/v1/models/writer/generate", json=call).json()["text"]
    assert tab.value(f"document.querySelector('{ANSWER} pre').textContent") == f"All:\nSpeak{expected}"


def test_a_generation_is_stopped(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "writer")
    # One that has begun, and is stopped before the network gives it another piece.
    tab.type(".panel:not([hidden]) .fields input", "500")
    tab.value("document.querySelector('.panel:not([hidden]) form').requestSubmit()")
    tab.value("document.querySelector('.panel:not([hidden]) form').requestSubmit()")
    tab.wait(f"document.querySelector('{ANSWER} .told').textContent === 'stopped'")
    assert tab.wait("document.querySelector('.panel:not([hidden]) button.main').textContent") == "Generate"


def test_what_the_server_refuses_is_said_and_the_field_is_marked(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "people")
    tab.type("input[type=number]", "1e300")
    tab.click(".panel:not([hidden]) button.main")
    assert tab.wait(FAILURE) == ("The model cannot use this input'age' is 1e+300, too far from what the model was trained on")
    assert tab.value("[...document.querySelectorAll('[aria-invalid=true]')].map((input) => input.value)") == ["1e300"]


def test_what_is_too_large_is_said(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "moods")
    tab.type(".panel:not([hidden]) textarea", "day " * 6000)
    tab.click(".panel:not([hidden]) button.main")
    assert tab.wait(FAILURE).startswith("This is too large")


def test_a_lost_connection_is_said_and_a_new_version_appears_by_itself(tab: Tab, served: Served, start: Start) -> None:
    served.serve("people", "1")
    running = start()
    show(tab, running.client, "people")
    tab.type("input[type=number]", "77")
    served.serve("people", "2")
    tab.wait("document.querySelector('.panel .chip').textContent === 'version 2'")
    assert tab.value("document.querySelector('input[type=number]').value") == "77", "what was entered stays"
    running.process.kill()
    tab.click("button.main")
    assert tab.wait(FAILURE).startswith("No connection to the server")
    tab.wait("document.querySelector('#state').textContent === 'No connection to the server'")


def test_markup_in_what_a_bundle_says_is_shown_and_not_executed(tab: Tab, served: Served, start: Start) -> None:
    markup = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    column = CategoryColumn(column=markup, values=(markup,), nullable=True)
    folder = served.add("people", "1", TableTransform(numbers=(), categories=(column,)))
    manifest = Bundle.open(folder).manifest
    Bundle(folder, manifest.model_copy(update={"description": markup, "labels": (markup, "low")})).write()
    served.point("people", "1")
    show(tab, start().client, "people")
    tab.click("button.main")
    tab.wait(WINNER)
    assert tab.value("document.body.innerText").count(markup) >= 3
    assert tab.value("document.querySelectorAll('main img, main script').length") == 0
    assert tab.value("document.title") == "people · maasflow"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_or_moves_when_the_answer_comes(tab: Tab, client: httpx.Client, width: int) -> None:
    tab.screen(width, 844)
    for model in ("marks", "moods", "people", "writer"):
        show(tab, client, model)
        size = "[document.documentElement.scrollWidth, document.querySelector('.panel:not([hidden])').offsetHeight]"
        window = tab.value("document.documentElement.clientWidth")
        before = tab.value(size)
        tab.click(".panel:not([hidden]) button.main")
        tab.wait(f"document.querySelector('{ANSWER} .told').textContent.includes('version')")
        assert tab.value(size)[0] <= window
        if model != "writer":
            assert tab.value(size) == before


def test_every_field_and_button_has_a_name(tab: Tab, client: httpx.Client) -> None:
    for model in ("marks", "moods", "people", "writer"):
        show(tab, client, model)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "textbox", "combobox", "spinbutton", "link", "image", "form", "navigation"}
        found = [(node["role"]["value"], node["name"]["value"]) for node in nodes if node.get("role", {}).get("value") in roles]
        assert len(found) > 8
        assert [role for role, name in found if not name] == []


def enter_key(tab: Tab, key: str) -> None:
    tab.wait("document.querySelector('dialog').open")
    tab.type("dialog input", key)
    tab.click("dialog button.main")


def test_it_asks_for_a_key_and_keeps_it_in_the_tab(tab: Tab, served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    keys = tmp_path / "keys.json"
    _, secret = create_key(keys, "someone")
    tab.go(str(start("--keys", str(keys)).client.base_url))
    for key in ("wrong", secret):
        enter_key(tab, key)
    tab.click(".panel:not([hidden]) button.main")
    assert tab.wait(WINNER)
    assert secret not in tab.value(COMMAND)
    assert '"Authorization: Bearer $MAASFLOW_KEY"' in tab.value(COMMAND)
    assert tab.value("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 1]


def figures(tab: Tab) -> dict[str, list[str]]:
    """What stands above each of the small pictures, by its title."""
    lines = tab.value("[...document.querySelectorAll('.panel:not([hidden]) .figure')].map((each) => each.innerText.split('\\n'))")
    return {title: [value for value in values if value] for title, *values in lines}


def test_what_was_asked_lately_is_counted_and_drawn(tab: Tab, served: Served, start: Start) -> None:
    served.serve("people", "1")
    running = start()
    for row in [{"age": 40, "color": "blue"}] * 7 + [{}]:
        running.client.post("/v1/models/people/predict", json={"instances": [row]})
    show(tab, running.client, "people")
    tab.wait("document.querySelector('.figure b').textContent === '8'")
    found = figures(tab)
    assert found["Errors"] == ["1", "1 × 422"]
    assert found["Rows in a batch"] == ["1.0"]
    median, high = (value.removeprefix("p99 ").removesuffix(" ms") for value in found["Median latency"])
    assert 0 < float(median) <= float(high)
    bars = "[...document.querySelectorAll('.figure path:not(.light)')].map((path) => path.getAttribute('d').includes('M'))"
    assert tab.value(bars) == [True] * 4
    tab.click("button.main")
    tab.wait("document.querySelector('.figure b').textContent === '9'")


def test_a_key_that_asks_too_often_is_told_how_long_to_wait(tab: Tab, served: Served, start: Start, tmp_path: Path) -> None:
    served.serve("people", "1")
    keys = tmp_path / "keys.json"
    _, secret = create_key(keys, "someone", requests_per_second=4)
    tab.go(str(start("--keys", str(keys)).client.base_url))
    enter_key(tab, secret)
    tab.wait("document.querySelector('button.main')")
    # Until one is refused: each cancels the one before, as a newer picture does.
    ask = "document.querySelector('form[aria-label]').requestSubmit()"
    refused = "document.querySelector('.try .failure')?.textContent.match(/Too many requests.*try again in .* s/)?.[0]"
    assert tab.wait(f"({refused}) || void {ask}")


def test_without_models_it_says_how_to_get_one(tab: Tab, start: Start) -> None:
    tab.go(str(start().client.base_url))
    assert "maasflow run" in tab.wait("document.querySelector('#panels .card').textContent")


def test_the_keyboard_alone_reaches_the_model_the_form_and_the_answer(tab: Tab, client: httpx.Client) -> None:
    show(tab, client, "marks")
    reached = []
    while "Copy" not in reached:
        tab.press("Tab")
        reached.append(tab.value("document.activeElement.innerText.split('\\n')[0] || document.activeElement.tagName"))
        outline = "(document.activeElement.closest('.file') ?? document.activeElement)"
        assert tab.value(f"getComputedStyle({outline}).outlineStyle") == "solid", reached
        if reached[-1] == "moods":
            tab.press("Enter")
            tab.wait("document.title.startsWith('moods ') && document.activeElement.tagName === 'H2'")
    assert reached[-3:] == ["TEXTAREA", "Predict", "Copy"]


# https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio, of each text on what lies behind it.
PALE = """(() => {
  const channels = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [[0.2126, r], [0.7152, g], [0.0722, b]].reduce((sum, [share, value]) => sum + share * linear(value / 255), 0);
  const behind = (element) => {
    const color = channels(getComputedStyle(element).backgroundColor);
    return color.length === 4 && color[3] === 0 ? behind(element.parentElement) : color;
  };
  const ratio = (element) => {
    const [low, high] = [channels(getComputedStyle(element).color), behind(element)].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = [...document.querySelectorAll('body *')].filter((each) => each.checkVisibility() && [...each.childNodes].some(
    (node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return [texts.length, texts.filter((each) => ratio(each) < 4.5).map((each) => each.textContent)];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_what_is_behind_it(tab: Tab, client: httpx.Client, dark: bool) -> None:
    tab.screen(1280, 900, dark=dark)
    back = tab.value("getComputedStyle(document.body).backgroundColor")
    for model in ("broken", "people", "writer"):
        show(tab, client, model)
        if model == "people":
            tab.type("input[type=number]", "1e300")
            tab.click(".panel:not([hidden]) button.main")
            tab.wait(FAILURE)
        texts, pale = tab.value(PALE)
        assert texts > 15
        assert pale == []
    tab.screen(1280, 900, dark=not dark)
    assert tab.value("getComputedStyle(document.body).backgroundColor") != back


def test_a_long_name_and_a_hundred_long_labels_fit_on_a_phone(tab: Tab, served: Served, start: Start) -> None:
    name, labels = "complaints-" * 7, tuple(f"a class with a name that is long, number {number}" for number in range(100))
    served.add(name, "1", labels=labels)
    served.point(name, "1")
    tab.screen(375, 812)
    show(tab, start().client, name)
    tab.click("button.main")
    assert tab.wait(WINNER) in labels
    assert tab.value("document.documentElement.scrollWidth") == 375
    assert tab.value("document.querySelectorAll('.bars li').length") == 100
    assert tab.value("[...document.querySelectorAll('.bars li')].filter((each) => each.checkVisibility()).length") == 10
