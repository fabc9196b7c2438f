"""A headless Chromium driven over its debugging pipe: real keys and clicks on a page opened from file://."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --mute-audio --remote-debugging-pipe --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage --hide-scrollbars"
)


class Browser:
    """One tab. Commands and answers are JSON that ends in a zero byte, on the file descriptors 3 and 4 of the child."""

    def __init__(self, profile: Path, timeout: float = 60.0):
        self.timeout, self.count, self.pending = timeout, 0, b""
        self.events: list[dict] = []
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        # Out of the way of 3 and 4 themselves.
        above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]

        def connect():
            os.dup2(above[0], 3)
            os.dup2(above[1], 4)

        # Its messages are many and mean nothing here; what goes wrong in the page comes through the pipe.
        self.process = subprocess.Popen(
            [CHROMIUM, *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, *above):
            os.close(fd)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the browser and wait for it."""
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        for fd in (self.to, self.back):
            os.close(fd)

    def call(self, method: str, **parameters):
        """One command of the protocol and its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, setup: str = ""):
        """Load a page from disk and wait for it; setup: JavaScript that runs before its own."""
        added = self.call("Page.addScriptToEvaluateOnNewDocument", source=setup)["identifier"]
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        self.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)

    def run(self, code: str):
        """The value of a JavaScript expression, promises awaited."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str):
        """Until an expression is true; fails with what the page complained of."""
        end = time.monotonic() + self.timeout
        while not self.run(condition):
            assert time.monotonic() < end, (condition, self.complaints())
            time.sleep(0.02)

    def key(self, key: str):
        """Press and release a key as a user does."""
        codes = {" ": 32, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        code = codes.get(key, ord(key[0].upper()))
        same = {"key": key, "windowsVirtualKeyCode": code, "code": "Space" if key == " " else key}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **same, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def click(self, selector: str):
        """Click into the middle of an element with the mouse."""
        where = json.dumps(selector)
        box = self.run(
            f"(() => {{ const e = document.querySelector({where}); e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """Exceptions and errors that the page has raised so far."""
        kept = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kept]

    def screenshot(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, whole: bool = True):
        """A PNG of the page at a width in CSS pixels."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(image["data"]))

    def _receive(self) -> dict:
        end = time.monotonic() + self.timeout
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("no answer from the browser")
            read = os.read(self.back, 1 << 20)
            if not read:
                raise OSError("the browser has gone")
            self.pending += read
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)
