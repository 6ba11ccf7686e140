"""Headless Chromium, driven by its own DevTools protocol over a pipe: no package needed beside the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

# Chromium reads commands from descriptor 3 and writes answers to 4
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_PATIENCE = 60.0


def find_chromium() -> str | None:
    """The installed browser; None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """A browser with a profile of its own; `close` ends it."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # numbers above 4, so that neither is overwritten before it is copied
        passed = [_moved(theirs_in), _moved(theirs_out)]
        command = [sys.executable, "-c", _START, *map(str, passed), program, *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(command, pass_fds=passed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for descriptor in passed:
            os.close(descriptor)
        self._rest = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def open(self, path: Path, wait: bool = True, **options: Any) -> Page:
        """A new page with nothing in common with others; see `Page.prepare` for the options."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        page.prepare(**options)
        page.go(path.as_uri(), wait)
        return page

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come before it go to their pages."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def listen(self, seconds: float) -> None:
        """Hand events to their pages until none has come for so long."""
        while b"\0" in self._rest or select.select([self._read], [], [], seconds)[0]:
            self.receive()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Hand events to their pages until a condition holds."""
        while not condition():
            self.receive()

    def receive(self) -> dict[str, Any]:
        """The next message; events are handed to their page too."""
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("Chromium ended or did not answer")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.heard(message["method"], message["params"])
        return message

    def close(self) -> None:
        """End the browser."""
        try:
            self.send("Browser.close")
        except (RuntimeError, OSError):
            self._process.kill()
        self._process.wait(_PATIENCE)
        for descriptor in (self._read, self._write):
            os.close(descriptor)


class Page:
    """One tab, and all that it complained of or asked for."""

    def __init__(self, browser: Chromium, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialog = False
        self._loaded = False

    def prepare(
        self, *, width: int = 1280, height: int = 900, scale: float = 1, scheme: str = "light", media: str = "screen",
        javascript: bool = True,
    ) -> None:  # fmt: skip
        """Listen, and set what the page is shown on."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.size(width, height, scale)
        self.media(media, scheme)
        self.send("Emulation.setScriptExecutionDisabled", value=not javascript)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Set the window's size, in CSS pixels."""
        mobile = width < 500
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def media(self, media: str, scheme: str) -> None:
        """ "screen" or "print", "light" or "dark"; without motion, so that nothing moves between two commands."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)

    def go(self, url: str, wait: bool = True) -> None:
        """Open an address and wait until it is loaded."""
        self._loaded = False
        self.send("Page.navigate", url=url)
        while wait and not self._loaded:
            self._browser.receive()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.send(method, self._session, **parameters)

    def heard(self, method: str, event: Mapping[str, Any]) -> None:
        """Take note of an event."""
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{event['type']}: {event['args']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {event['exceptionDetails']}")
            case "Log.entryAdded":
                self.complaints.append(f"log: {event['entry']['text']}")
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {event['message']}")
                self.dialog = True
            case "Page.javascriptDialogClosed":
                self.dialog = False

    def run(self, function: str, *arguments: Any) -> Any:
        """What a JavaScript function returns, as JSON values."""
        call = f"({function})({', '.join(json.dumps(argument) for argument in arguments)})"
        found = self.send("Runtime.evaluate", expression=call, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", function))
        return found["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that fit."""
        return self.run("s => [...document.querySelectorAll(s)].map(e => e.textContent.trim())", selector)

    def count(self, selector: str) -> int:
        """How many elements fit."""
        return len(self.texts(selector))

    def attribute(self, selector: str, name: str) -> str | None:
        """An attribute of the first element that fits."""
        return self.run("(s, n) => document.querySelector(s).getAttribute(n)", selector, name)

    def visible(self, selector: str) -> bool:
        """Whether the first element that fits takes up room."""
        return self.run("s => document.querySelector(s).getClientRects().length > 0", selector)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that fits; fails if another element covers it."""
        x, y, hit = self.run(
            """selector => {
              const element = document.querySelector(selector);
              element.scrollIntoView({ block: "center", behavior: "instant" });
              const { x, y, width, height } = element.getBoundingClientRect();
              const at = [x + width / 2, y + height / 2];
              return [...at, element.contains(document.elementFromPoint(...at))];
            }""",
            selector,
        )
        if not hit:
            raise RuntimeError(f"{selector} is covered or out of sight")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field by typing."""
        self.run("s => { const e = document.querySelector(s); e.focus(); e.select(); }", selector)
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option; the events are those of a choice by hand."""
        self.run(
            """(selector, value) => {
              const element = document.querySelector(selector);
              element.value = value;
              if (element.value !== value) throw new Error(`${selector} has no option ${value}`);
              for (const name of ["input", "change"]) element.dispatchEvent(new Event(name, { bubbles: true }));
            }""",
            selector,
            value,
        )

    def screenshot(self, path: Path, whole: bool = True, clip: tuple[float, float, float, float] | None = None) -> None:
        """A PNG of the whole page, of the window, or of a part (x, y, width, height)."""
        options: dict[str, Any] = {"captureBeyondViewport": whole or clip is not None}
        if clip is not None:
            options["clip"] = dict(zip(("x", "y", "width", "height"), clip, strict=True)) | {"scale": 1}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **options)["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        self.send("Emulation.setEmulatedMedia", media="", features=[])
        found = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """Close the tab."""
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)


def _moved(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return moved
