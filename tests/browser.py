"""A headless Chromium, driven over the DevTools protocol (chromedevtools.github.io/devtools-protocol) as a person would."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "ArrowDown": (40, "")}
"""The number of a key, and what it writes."""
PATIENCE = 60.0
"""Seconds, after which what was waited for will not come."""


def find_chromium() -> str:
    """The browser of this machine; without one the test is skipped."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    return browser


class Tab:
    """One page. `errors` is what its script failed on, and what its policy refused."""

    def __init__(self, socket: Connection) -> None:
        self.socket = socket
        self.errors: list[str] = []
        self._count = 0
        self._session = ""

    @classmethod
    @contextmanager
    def open(cls, profile: Path) -> Iterator[Self]:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")
        command = [find_chromium(), *options, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(profile), max_size=None, proxy=None) as socket:
                yield cls(socket)._attach()
        finally:
            process.kill()
            process.wait()

    def _attach(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        return self

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers to a command. Raises RuntimeError."""
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        self.socket.send(json.dumps({"id": self._count, "method": method, "params": params, **session}))
        while True:
            message = json.loads(self.socket.recv(PATIENCE))
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._listen(message)

    def _listen(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            # A status that is an error is told as one of the network, and is the page's to deal with.
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "source": source, "text": text}}} if (
                source != "network"
            ):
                self.errors.append(text)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is. Raises RuntimeError."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if details := found.get("exceptionDetails"):
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The expression's value, once it is truthy; one that cannot be evaluated yet is waited for too."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            # An element has no value that could be sent.
            found = self.value(
                f"(() => {{ try {{ const it = {expression}; return it instanceof Node || it; }} catch {{ return null; }} }})()"
            )
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{expression} did not come true on:\n{self.value('document.body.innerText')}")

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height in the window, to which it is scrolled. The selector may match many, of which one is visible."""
        visible = f"[...document.querySelectorAll({json.dumps(selector)})].find((each) => each.checkVisibility())"
        self.wait(visible)
        self.value(f"{visible}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y, width, height = self.value(f"(({{x, y, width, height}}) => [x, y, width, height])({visible}.getBoundingClientRect())")
        return x, y, width, height

    def click(self, selector: str) -> None:
        x, y, width, height = self.place(selector)
        self.drag([(x + width / 2, y + height / 2)])

    def drag(self, points: list[tuple[float, float]]) -> None:
        """With the button pressed, from the first point to the last."""
        (x, y), (end_x, end_y) = points[0], points[-1]
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for next_x, next_y in points[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=next_x, y=next_y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end_x, y=end_y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """In place of what stands there."""
        self.click(selector)
        self.value("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """One key of those in `KEYS`."""
        number, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found)

    def screenshot(self, path: Path) -> None:
        """The whole page, also what is below the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


def _address(profile: Path) -> str:
    """Where the browser listens, once it has written it down: its port, and a path that nobody guesses."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
        else:
            return f"ws://127.0.0.1:{port}{path}"
    raise AssertionError("the browser did not start")
