"""A headless Chromium, driven over the DevTools protocol: JSON between two pipes, no other package."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Chromium reads its orders from this file descriptor and answers on the next.
ORDERS, ANSWERS = 3, 4


def find_chromium() -> str | None:
    """Path of the program."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


class Browser:
    """One page; `events`: all events of the browser since it was opened."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders = orders
        self._answers = os.fdopen(answers, "rb", closefd=False)
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while (message := self._read()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message
        answer: dict[str, Any] = message["result"]
        return answer

    def open(self, page: Path | str, width: int, scheme: str) -> None:
        """Show a page by path or address in a window of this width, "light" or "dark", and wait until it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """Value of an expression on the page; that of a promise, once it is kept."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"]
        return result.get("value")

    def told(self, *methods: str) -> list[dict[str, Any]]:
        """Parameters of the events of these kinds."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def _read(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            content += byte
        message: dict[str, Any] = json.loads(content)
        return message


@contextmanager
def open_browser(program: str, profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile; it is closed at the end of the block."""
    # High numbers, so that none of them is one of the two that Chromium expects.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 32) for end in (*os.pipe(), *os.pipe())]
    read_orders, write_orders, read_answers, write_answers = ends

    def connect() -> None:
        os.dup2(read_orders, ORDERS)
        os.dup2(write_answers, ANSWERS)

    process = subprocess.Popen(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ],
        preexec_fn=connect,
        pass_fds=(ORDERS, ANSWERS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_orders)
    os.close(write_answers)
    try:
        yield Browser(write_orders, read_answers)
    finally:
        process.terminate()
        process.wait(30)
        os.close(write_orders)
        os.close(read_answers)
