#!/usr/bin/env python3
"""Opens report pages in headless Chromium and checks what a reader would see: figure, table, strips, sorting, no console error, no
horizontal scrolling at 400 and 1400 pixels, light and dark. Needs playwright (tools/checks/install_python.sh) and a Chromium of the
system (tools/checks/install_chromium.sh); playwright's own is never downloaded.

  check_report.py runs/demo-1/report.html [more.html] [--chromium PATH] [--screenshots DIR]
"""

import argparse
import base64
import re
import shutil
import sys
from pathlib import Path

try:
    from playwright.sync_api import Error as BrowserError
    from playwright.sync_api import sync_playwright
except ImportError:
    sys.exit("check_report: this needs playwright: run it with the python that tools/checks/install_python.sh DIRECTORY prints")

WIDTHS = (400, 1400)
SLICE = 8000  # pixels of height per screenshot: Chromium draws no taller picture


def problems_on(page):
    """A list that fills with console errors, exceptions, and requests for anything but the file itself."""
    found = []

    def console(message):
        if message.type in ("error", "warning", "assert"):
            found.append(f"console {message.type}: {message.text}")

    def request(sent):
        if not sent.url.startswith(("data:", "file:")):
            found.append(f"request: {sent.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: found.append(f"exception: {error}"))
    page.on("crash", lambda _: found.append("the page crashed"))
    page.on("request", request)
    page.on("requestfailed", lambda sent: found.append(f"request failed: {sent.url[:200]}"))
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


RUN = {  # what it must give -> script
    "figure with curves": "document.querySelectorAll('#figure .wide svg polyline, #figure .wide svg circle').length > 0",
    "one figure shown": """
        [...document.querySelectorAll('#figure .wide, #figure .narrow')].filter(e => e.offsetHeight > 100).length === 1""",
    "a table row per curve": """
        document.querySelectorAll('#accuracy tbody tr').length === document.querySelectorAll('#figure .legend li').length""",
    "intervals in the table": r"/\d\.\d %.*\[\d+\.\d, \d+\.\d\]/s.test(document.querySelector('#accuracy tbody').innerText)",
    "checks with verdicts": "document.querySelectorAll('#checks .verdict').length >= 11",
    "strips of at least three pictures": """(() => {
        const strips = [...document.querySelectorAll('.strip')];
        return strips.length > 0 && strips.every(s => s.querySelectorAll('img').length >= 3);
    })()""",
    "pictures have pixels": """Promise.all([...document.images].map(i => {
        i.loading = 'eager';
        return i.decode().then(() => i.naturalWidth > 0, () => false);
    })).then(all => all.length > 0 && all.every(Boolean))""",
    "maps with shifts": r"""
        document.querySelectorAll('#maps .maprow').length > 0 && /shift \d\.\d+/.test(document.querySelector('#maps').innerText)""",
}
KEYS = {"fate": "rank", "clean": "clean", "last": "last", "image": "image"}  # what strips are sorted by -> their data attribute


def sorting_works(page):
    """Sorts the first model's strips by everything, then shows those of one fate only, then all."""
    model = page.locator("#strips .model").first
    strips = model.locator(".strip")
    sort, show = model.locator(".sort"), model.locator(".show")

    def ordered(key):
        numbers = strips.evaluate_all("(all, key) => all.map(s => +s.dataset[key])", key)
        return all(a <= b for a, b in zip(numbers, numbers[1:]))

    def picked(select, value, then):
        # Set as a value, not by clicking: a select that its CSS hides at this width must still work.
        select.evaluate("(e, value) => { e.value = value; e.dispatchEvent(new Event('change')); }", value)
        return then()

    good = [picked(sort, value, lambda key=key: ordered(key)) for value, key in KEYS.items()]
    fate = strips.first.get_attribute("data-fate")
    shown = "(all, fate) => all.every(s => s.hidden === (s.dataset.fate !== fate))"
    good.append(picked(show, fate, lambda: strips.evaluate_all(shown, fate)))
    good.append(picked(show, "", lambda: strips.evaluate_all("all => all.every(s => !s.hidden)")))
    return all(good)


def check_page(page, problems, path, width, dark, screenshots):
    problems.clear()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.goto(path.resolve().as_uri(), wait_until="load")
    found = []
    # What is folded has no text that is shown and takes no room: the checks are of the page with everything open.
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    wide = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    if wide > width:
        culprits = page.evaluate("""[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 3).map(e => e.tagName + '.' + e.className).join(', ')""")
        found.append(f"scrolls to {wide} pixels: {culprits}")
    if page.locator("#strips, #checks").count():
        found += [what for what, script in RUN.items() if page.evaluate(script) is not True]
        if page.locator("#strips").count() and not sorting_works(page):
            found.append("sorting and filtering of strips")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, re.findall(r"\d+", ground)[:3]))
    found += ["colours do not follow the scheme"] * ((level < 200) != dark)
    found += problems
    if screenshots:
        name = f"{path.resolve().parent.name}-{path.stem}-{width}-{'dark' if dark else 'light'}"
        height = page.evaluate("document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, height, SLICE)):
            clip = {"x": 0, "y": top, "width": width, "height": min(SLICE, height - top)}
            page.screenshot(path=screenshots / f"{name}-{part}.png", full_page=True, clip=clip)
    return found


def check(page, problems, path, screenshots):
    """What is wrong with a page, and how many pictures it has."""
    found, pictures = check_file(path)
    for width in WIDTHS:
        for dark in (False, True):
            where = f"{width} px, {'dark' if dark else 'light'}"
            try:
                found += [f"{where}: {problem}" for problem in check_page(page, problems, path, width, dark, screenshots)]
            except BrowserError as problem:
                found.append(f"{where}: {problem}")
    return found, pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    installed = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    parser.add_argument("--chromium", default=next(installed, None), help="its program; by default the one on PATH")
    parser.add_argument("--screenshots", type=Path, help="folder for a picture of every page at every width")
    args = parser.parse_args()
    if not args.chromium:
        parser.error("no chromium, chromium-browser or google-chrome on PATH; name one with --chromium")
    missing = [str(path) for path in args.pages if not path.is_file()]
    if missing:
        parser.error(f"no such page: {', '.join(missing)}")
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with sync_playwright() as playwright:
        # No sandbox: as root, as in a container, Chromium refuses to start with one. The pages are our own. Scrollbars take room, as
        # they do for a reader.
        try:
            browser = playwright.chromium.launch(
                executable_path=args.chromium, chromium_sandbox=False, ignore_default_args=["--hide-scrollbars"]
            )
        except BrowserError as problem:
            sys.exit(f"check_report: {args.chromium} does not start: {problem.message.splitlines()[0]}")
        page = browser.new_page()
        problems = problems_on(page)
        for path in args.pages:
            found, pictures = check(page, problems, path, args.screenshots)
            failed += bool(found)
            print(f"{'FAIL' if found else 'ok  '}  {path}  {path.stat().st_size} bytes, {pictures} pictures")
            for problem in found:
                print(f"      {problem}")
        browser.close()
    print(f"{len(args.pages) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
