"""A headless Chromium, spoken to over pipes in its DevTools protocol: nothing but the browser is needed."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab.

    Attributes:
      errors: what its console said of errors and warnings, and exceptions of its programs.
    """

    def __init__(self, requests, answers):
        self.requests, self.answers, self.numbers = requests, answers, itertools.count(1)
        self.errors, self.events, self.session = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of one command; what happens meanwhile is noted."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.requests.write(json.dumps(message).encode() + b"\0")
        self.requests.flush()
        while (answer := self.next_message()).get("id") != number:
            self.note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def next_message(self):
        text = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            text += byte
        return json.loads(text)

    def note(self, event):
        self.events.append(event["method"])
        params = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))

    def open(self, path, width, scheme="light"):
        """Opens a file in a window of that width."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + 60
        while self.value("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def value(self, expression):
        """What a JavaScript expression evaluates to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path):
        """The whole page as a PNG file."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def opened(folder):
    """A Page; the browser keeps its files in that folder."""
    ours, theirs = os.pipe(), os.pipe()  # what the browser reads at descriptor 3, and what it writes at 4
    command = f'exec "{CHROMIUM}" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        ["bash", "-c", command, "chromium", *flags, f"--user-data-dir={folder}"],
        pass_fds=(ours[0], theirs[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    with open(ours[1], "wb") as requests, open(theirs[0], "rb") as answers:
        try:
            yield Page(requests, answers)
        finally:
            process.terminate()
            process.wait(timeout=30)
