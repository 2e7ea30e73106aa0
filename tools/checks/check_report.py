#!/usr/bin/env python3
"""Opens report pages in headless Chromium and checks what a reader would see: figure, table, strips, sorting, no console error, no
horizontal scrolling at 400 and 1400 pixels, light and dark. Needs a Chromium and nothing but Python's standard library.

  check_report.py runs/demo-1/report.html [more.html] [--chromium PATH] [--screenshots DIR]
"""
import argparse
import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

WIDTHS = (400, 1400)


class Page:
    """A tab, driven through the DevTools protocol over a WebSocket."""

    def __init__(self, port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        target = json.load(urllib.request.urlopen(request))
        path = target["webSocketDebuggerUrl"].split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        if b" 101 " not in head:
            raise RuntimeError(f"DevTools refused the connection: {head[:80]!r}")
        self.number, self.events = 0, []

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise RuntimeError("Chromium closed the connection")
            data += part
        return data

    def message(self):
        whole = b""
        while True:
            first, length = self.read(2)
            length &= 127
            if length == 126:
                length, = struct.unpack(">H", self.read(2))
            elif length == 127:
                length, = struct.unpack(">Q", self.read(8))
            whole += self.read(length)
            if first & 128:
                return json.loads(whole)

    def call(self, method, **params):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        length = bytes([128 | len(data)]) if len(data) < 126 else struct.pack(">BH", 254, len(data))
        mask = os.urandom(4)
        self.socket.sendall(b"\x81" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def eval(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")


def problems_of(events):
    """Console errors, exceptions, and requests for anything but the file itself."""
    found = []
    for event in events:
        params = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            found.append(f"exception: {params['exceptionDetails'].get('text')}")
        if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            found.append(f"console: {params}")
        if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            found.append(f"log: {params['entry']['text']}")
        if event["method"] == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("data:", "file:")):
            found.append(f"request: {params['request']['url']}")
    return found


def check_file(path):
    """What needs no browser: nothing from elsewhere, pictures that are PNG."""
    html = path.read_text(encoding="utf-8")
    found = [f"external address {url}" for url in re.findall(r"""(?:src|href)=["'](https?:[^"']+)""", html)]
    found += ["external style or script"] * bool(re.search(r"<script[^>]+src=|@import|<link[^>]+stylesheet", html))
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    found += ["a picture is no PNG"] * any(not base64.b64decode(p).startswith(b"\x89PNG\r\n\x1a\n") for p in pictures)
    if path.stat().st_size > 15 << 20:
        found.append(f"{path.stat().st_size} bytes, more than 15 MiB")
    return found, len(pictures)


RUN = {  # script -> what it must give
    "figure with curves": "document.querySelectorAll('#figure .wide svg polyline, #figure .wide svg circle').length > 0",
    "one figure shown": "[...document.querySelectorAll('#figure .wide, #figure .narrow')].filter(e => e.offsetHeight > 100).length === 1",
    "a table row per curve": "document.querySelectorAll('#accuracy tbody tr').length === document.querySelectorAll('#figure .legend li').length",
    "intervals in the table": "/\\d\\.\\d %.*\\[\\d+\\.\\d, \\d+\\.\\d\\]/s.test(document.querySelector('#accuracy tbody').innerText)",
    "checks with verdicts": "document.querySelectorAll('#checks .verdict').length >= 11",
    "strips of at least three pictures": "[...document.querySelectorAll('.strip')].length > 0 && [...document.querySelectorAll('.strip')].every(s => s.querySelectorAll('img').length >= 3)",
    "pictures have pixels": "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().then(() => i.naturalWidth > 0, () => false); })).then(all => all.length > 0 && all.every(Boolean))",
    "maps with shifts": "document.querySelectorAll('#maps .maprow').length > 0 && /shift \\d\\.\\d+/.test(document.querySelector('#maps').innerText)",
}
SORT = """(() => { const model = document.querySelector('#strips .model'), sort = model.querySelector('.sort'), show = model.querySelector('.show');
  const order = key => [...model.querySelectorAll('.strip')].map(s => +s.dataset[key]);
  const sorted = list => list.every((v, i) => i === 0 || list[i - 1] <= v);
  const pick = (select, value) => { select.value = value; select.dispatchEvent(new Event('change')); };
  const good = [];
  for (const [value, key] of [['fate', 'rank'], ['clean', 'clean'], ['last', 'last'], ['image', 'image']]) { pick(sort, value); good.push(sorted(order(key))); }
  const fate = model.querySelector('.strip').dataset.fate; pick(show, fate);
  good.push([...model.querySelectorAll('.strip')].every(s => s.hidden === (s.dataset.fate !== fate))); pick(show, '');
  good.push([...model.querySelectorAll('.strip')].every(s => !s.hidden)); return good.every(Boolean); })()"""


def check_page(page, path, width, dark, screenshots):
    page.events.clear()
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
    page.call("Page.navigate", url=path.resolve().as_uri())
    for _ in range(200):
        if page.eval("document.readyState") == "complete" and page.eval("location.protocol") == "file:":
            break
        time.sleep(0.05)
    found = []
    wide = page.eval("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    if wide > width:
        culprit = page.eval("[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
                            ".slice(0, 3).map(e => e.tagName + '.' + e.className).join(', ')")
        found.append(f"scrolls to {wide} pixels: {culprit}")
    if page.eval("document.querySelector('#strips, #checks') !== null"):
        found += [what for what, script in RUN.items() if page.eval(script) is not True]
        if page.eval("document.querySelector('#strips') !== null") and page.eval(SORT) is not True:
            found.append("sorting and filtering of strips")
    ground = page.eval("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, re.findall(r"\d+", ground)[:3]))
    found += ["colours do not follow the scheme"] * ((level < 200) != dark)
    found += problems_of(page.events)
    if screenshots:
        name = f"{path.resolve().parent.name}-{path.stem}-{width}-{'dark' if dark else 'light'}"
        height = page.eval("document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, height, 8000)):
            clip = {"x": 0, "y": top, "width": width, "height": min(8000, height - top), "scale": 1}
            shot = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
            (screenshots / f"{name}-{part}.png").write_bytes(base64.b64decode(shot))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None))
    parser.add_argument("--screenshots", type=Path, help="folder for a picture of every page at every width")
    args = parser.parse_args()
    if not args.chromium:
        parser.error("no chromium, chromium-browser or google-chrome on PATH; name one with --chromium")
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as profile:
        command = [args.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            for _ in range(600):
                if port_file.exists() and port_file.read_text().strip():
                    break
                time.sleep(0.1)
            page = Page(int(port_file.read_text().split()[0]))
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            for path in args.pages:
                found, pictures = check_file(path)
                for width in WIDTHS:
                    for dark in (False, True):
                        found += [f"{width} px, {'dark' if dark else 'light'}: {f}" for f in check_page(page, path, width, dark, args.screenshots)]
                failed += bool(found)
                print(f"{'FAIL' if found else 'ok  '}  {path}  {path.stat().st_size} bytes, {pictures} pictures")
                for problem in found:
                    print(f"      {problem}")
        finally:
            browser.terminate()
            browser.wait()
    print(f"{len(args.pages) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
