"""A real headless Chromium, driven through ChromeDriver's own HTTP interface."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)
_PATIENCE = 60  # seconds


class Browser:
    """One window.

    Args:
        session: address of the session in ChromeDriver.
    """

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        """Load a file at a width in pixels, as tall as it is."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])
        self._resize(width, 800)
        _post(f"{self._session}/url", url=page.resolve().as_uri())
        self._resize(width, int(self.run("return document.documentElement.scrollHeight")))

    def run(self, script: str) -> Any:
        """What JavaScript returns."""
        return _post(f"{self._session}/execute/sync", script=script, args=[])

    def complaints(self) -> list[str]:
        """Messages of the console since the last call."""
        return [entry["message"] for entry in _post(f"{self._session}/se/log", type="browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, but for the browser's own start page."""
        entries = _post(f"{self._session}/se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        found = [each["request"]["url"] for each in sent]
        return [url for url in found if not url.startswith(("data:", "chrome:"))]

    def screenshot(self, file: Path) -> None:
        """Save the whole page as PNG."""
        with urllib.request.urlopen(f"{self._session}/screenshot", timeout=_PATIENCE) as answer:
            file.write_bytes(base64.b64decode(json.load(answer)["value"]))

    def _resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._cdp("Emulation.setDeviceMetricsOverride", **size)

    def _cdp(self, command: str, **parameters: Any) -> None:
        _post(f"{self._session}/goog/cdp/execute", cmd=command, params=parameters)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, ended in any case; skips the test if there is none."""
    driver = shutil.which("chromedriver")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or binary is None:
        pytest.skip("no chromium and chromedriver on the path")
    output = profile.with_suffix(".log")
    with output.open("wb") as log:
        process = subprocess.Popen([driver, "--port=0"], stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{_port(output)}"
        options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wishes = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = _post(f"{address}/session", capabilities={"alwaysMatch": wishes})
        session = f"{address}/session/{answer['sessionId']}"
        yield Browser(session)
        urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=_PATIENCE)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def _port(output: Path) -> int:
    """The port that ChromeDriver says it was given."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        text = output.read_text(errors="replace")
        if found := re.search(r"started successfully on port (\d+)\.", text):
            return int(found[1])
        time.sleep(0.1)
    raise TimeoutError(f"chromedriver did not start: {output.read_text(errors='replace')}")


def _post(address: str, **content: Any) -> Any:
    request = urllib.request.Request(address, json.dumps(content).encode())
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        return json.load(answer)["value"]
