#!/usr/bin/env python3
"""Drives a headless Chromium by lines on standard input; each answer is one line, `ok`, `ok VALUE` or `error WHY`.

    browser.py DIRECTORY-FOR-PICTURES [OPTION-OF-CHROMIUM...]

The words of a line are separated by the character US (0x1f). SELECTOR is CSS; waits last up to a minute.

    open URL                       loads a page
    see SELECTOR TEXT              waits until the text of the first element with that selector contains TEXT
    lose SELECTOR TEXT             waits until it does not, or the element is gone
    read SELECTOR                  answers the element's text
    ask SCRIPT                     answers what a script returns, as JSON
    press KEYS                     sends keys to what has the focus: characters, or one name such as ENTER
    type SELECTOR TEXT             replaces the text of an input
    click SELECTOR
    hide | unhide                  makes the page think that its tab is in the background
    shoot NAME                     saves NAME-light.png, NAME-dark.png, NAME-phone.png; fails if a text has too little contrast or
                                   the page is wider than the window
    check                          fails if anything ran or was refused that should not: dialogs, violations of the policy, errors
"""

import base64
import json
import os
import sys
import tempfile
import time

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.05
SHOWN_HEIGHT = 2200
TYPED_CHARACTERS = 200  # a longer text is pasted
LOOKS = {"light": (1280, 900), "dark": (1280, 900), "phone": (360, 740)}
ARGUMENTS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --window-size=1280,900""".split()

# In each new page, before its own script.
WATCH = """
    window.found = [];
    for (const name of ["alert", "confirm", "prompt", "open"]) window[name] = (text) => { found.push(`${name}: ${text}`); };
    addEventListener("securitypolicyviolation", (e) => found.push(`violation: ${e.effectiveDirective} ${e.blockedURI} ${e.sample}`));
    addEventListener("error", (e) => found.push(`error: ${e.message ?? e.target}`), true);
    addEventListener("unhandledrejection", (e) => found.push(`rejection: ${e.reason}`));
"""

# WCAG 2.2, 1.4.3: a ratio of at least 4.5, or 3 for large text. Answers the texts that have less.
CONTRAST = """
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const channels = (color, under) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const fill of [under, color]) { canvas.fillStyle = fill; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = (color) => color.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => node && getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)" ? ground(node.parentElement)
        : node ? getComputedStyle(node).backgroundColor : "white";
    const faint = [];
    for (const node of document.querySelectorAll("body *")) {
        const text = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.nodeValue.trim()).join("");
        if (!text || !node.checkVisibility()) continue;
        const style = getComputedStyle(node), under = ground(node);
        const [a, b] = [channels(under, "white"), channels(style.color, under)].map(luminance).sort((a, b) => b - a);
        const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${ratio.toFixed(1)}: ${text.slice(0, 40)}`);
    }
    return faint.slice(0, 5);
"""


class Failed(Exception):
    """A condition that does not hold."""


class Browser:
    def __init__(self, screenshots, *more_arguments):
        self.screenshots = screenshots
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        for argument in [*ARGUMENTS, *more_arguments, f"--user-data-dir={self.profile.name}"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.chrome = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        self.look("light")

    def quit(self):
        self.chrome.quit()
        self.profile.cleanup()

    def devtools(self, command, **parameters):
        return self.chrome.execute_cdp_cmd(command, parameters)

    def look(self, name):
        width, height = LOOKS[name]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme = "dark" if name == "dark" else "light"
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def text(self, selector):
        """The text of the first element, or None."""
        found = self.chrome.find_elements(By.CSS_SELECTOR, selector)
        return found[0].get_attribute("textContent") if found else None

    def wait(self, selector, is_met, wanted):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                text = self.text(selector)
            except StaleElementReferenceException:
                text = None
            if is_met(text):
                return text
            if time.monotonic() > deadline:
                raise Failed(f"{selector} should {wanted}, and has {text!r}")
            time.sleep(PAUSE_SECONDS)

    def do_open(self, url):
        self.chrome.get(url)

    def do_see(self, selector, wanted):
        self.wait(selector, lambda text: text is not None and wanted in text, f"contain {wanted!r}")

    def do_lose(self, selector, unwanted):
        self.wait(selector, lambda text: text is None or unwanted not in text, f"not contain {unwanted!r}")

    def do_read(self, selector):
        return self.wait(selector, lambda text: text is not None, "exist")

    def do_ask(self, script):
        return json.dumps(self.chrome.execute_script(script))

    def do_press(self, keys):
        self.chrome.switch_to.active_element.send_keys(getattr(Keys, keys, keys))

    def do_type(self, selector, text):
        field = self.chrome.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        if len(text) <= TYPED_CHARACTERS:
            field.send_keys(text)
        else:
            field.click()
            self.devtools("Input.insertText", text=text)

    def do_click(self, selector):
        self.chrome.find_element(By.CSS_SELECTOR, selector).click()

    def set_hidden(self, hidden):
        self.chrome.execute_script(
            f"Object.defineProperty(document, 'hidden', {{ configurable: true, value: {json.dumps(hidden)} }});"
            "document.dispatchEvent(new Event('visibilitychange'));"
        )

    def do_hide(self):
        self.set_hidden(True)

    def do_unhide(self):
        self.set_hidden(False)

    def do_shoot(self, name):
        for look in LOOKS:
            self.look(look)
            faint = self.chrome.execute_script(CONTRAST)
            width, inner, height = self.chrome.execute_script(
                "return [document.documentElement.scrollWidth, innerWidth, document.documentElement.scrollHeight]"
            )
            clip = {"x": 0, "y": 0, "width": inner, "height": min(height, SHOWN_HEIGHT), "scale": 1}
            shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            with open(os.path.join(self.screenshots, f"{name}-{look}.png"), "wb") as file:
                file.write(base64.b64decode(shot["data"]))
            if width > inner:
                raise Failed(f"{name}, {look}: the page is {width} wide, and the window {inner}")
            if faint:
                raise Failed(f"{name}, {look}: too little contrast: {faint}")
        self.look("light")

    def do_check(self):
        found = self.chrome.execute_script("return window.found")
        # A request that nginx refuses, or does not answer while it is stopped, is logged as a failed resource.
        logged = [
            entry["message"]
            for entry in self.chrome.get_log("browser")
            if entry["level"] == "SEVERE" and "Failed to load resource" not in entry["message"]
        ]
        if found or logged:
            raise Failed(f"in the page: {found}; on the console: {logged}")


def main():
    browser = Browser(*sys.argv[1:])
    try:
        print("ok", flush=True)
        for line in sys.stdin:
            command, *words = line.rstrip("\n").split("\x1f")
            try:
                value = getattr(browser, f"do_{command}")(*words)
                answer = "ok" if value is None else f"ok {value}"
            except (Failed, WebDriverException) as error:
                answer = f"error {command}: {error}"
            print(" ".join(answer.split()), flush=True)
    finally:
        browser.quit()


main()
