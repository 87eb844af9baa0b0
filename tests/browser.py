"""A real Chromium, and a reviewer at its keyboard on the real Label Studio."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from connectors.studio_server import Studio

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
PATIENCE = 120.0
"""Seconds; Label Studio's page is slow where the machine is busy."""
SUBMIT = "[data-testid=bottombar-submit-button], [data-testid=bottombar-update-button]"
GUIDELINES = ".lsf-modal-ls__body"
SENT = """
const send = window.fetch;
window.sent = 0;
window.fetch = (...request) => send(...request).then(reply => {
  if (/annotations/.test(reply.url) && reply.ok && /POST|PATCH/.test(request[1]?.method ?? "")) window.sent += 1;
  return reply;
});
"""
WORDS = """
const walk = document.createTreeWalker(document.querySelector(arguments[0]), NodeFilter.SHOW_TEXT);
for (let node; (node = walk.nextNode());) {
  const at = node.data.indexOf(arguments[1]);
  if (at < 0) continue;
  const range = document.createRange();
  range.setStart(node, at);
  range.setEnd(node, at + arguments[1].length);
  const box = range.getBoundingClientRect();
  return [box.left, box.right, (box.top + box.bottom) / 2];
}
"""


class Browser:
    """A Chromium that knows no address but loopback, with a window of a given size."""

    def __init__(self, *, width: int = 1366, height: int = 768) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for switch in SWITCHES:
            options.add_argument(switch)
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.driver.set_script_timeout(PATIENCE)
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Make the window so large."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def press(self, *keys: str) -> None:
        """Press keys one after another, each let go before the next."""
        ActionChains(self.driver).send_keys(*keys).pause(0.3).perform()

    def shows(self, selector: str) -> bool:
        """Whether something of this kind takes room on the page."""
        return bool(
            self.driver.execute_script(
                "return [...document.querySelectorAll(arguments[0])].some(each => each.offsetHeight)", selector
            )
        )

    def text(self, selector: str) -> str:
        """What is written there."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def script(self, script: str) -> Any:
        """The value of a script on the page."""
        return self.driver.execute_script(script)

    def picture(self, file: Path) -> None:
        """Keep what is seen."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def until(self, done: Callable[[], Any]) -> None:
        """Wait until something holds."""
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1).until(lambda _: done())


class Reviewer(Browser):
    """Works on the page: by keys wherever the page allows it."""

    def __init__(self, studio: Studio, *, width: int = 1366, height: int = 768) -> None:
        super().__init__(width=width, height=height)
        self._studio = studio
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SENT})

    def log_in(self) -> None:
        """Give name and password."""
        self.driver.get(f"{self._studio.url}/user/login/")
        self.driver.find_element(By.NAME, "email").send_keys(self._studio.user)
        self.driver.find_element(By.NAME, "password").send_keys(self._studio.password, Keys.ENTER)
        self.until(lambda: "login" not in self.driver.current_url)

    def open(self, address: str) -> None:
        """Open the tasks and put the guidelines away, if they are shown."""
        self.driver.get(address)
        self.until(lambda: self.shows("#rv-verdict"))
        self.until(lambda: self.shows(SUBMIT))
        if self.shows(GUIDELINES):
            self.press(Keys.ESCAPE)
            self.until(lambda: not self.shows(GUIDELINES))

    def hold(self, *held: str, key: str) -> None:
        """Press a key while others are held."""
        chain = ActionChains(self.driver)
        for each in held:
            chain.key_down(each)
        chain.send_keys(key)
        for each in reversed(held):
            chain.key_up(each)
        chain.pause(0.3).perform()

    def draw(self, area: str, words: str) -> None:
        """Draw over words with the mouse."""
        left, right, middle = self.driver.execute_script(WORDS, area, words)
        chain = ActionChains(self.driver)
        pointer = chain.w3c_actions.pointer_action
        pointer.move_to_location(round(left) + 1, round(middle)).pointer_down()
        pointer.move_to_location(round(right) - 1, round(middle)).pointer_up()
        chain.pause(0.3).perform()

    def submit(self) -> None:
        """Submit by keys and wait until the server has the verdict."""
        before = self.script("return window.sent")
        self.hold(Keys.CONTROL, key=Keys.ENTER)
        self.until(lambda: self.script("return window.sent") > before)

    def skip(self) -> None:
        """Skip by keys and wait until the server knows."""
        before = self.script("return window.sent")
        self.hold(Keys.CONTROL, key=Keys.SPACE)
        self.until(lambda: self.script("return window.sent") > before)

    def tab_to(self, name: str) -> None:
        """Go on by Tab until the control of this name has the focus."""
        for _ in range(60):
            self.press(Keys.TAB)
            if self.script("return document.activeElement.name ?? ''").startswith(name):
                return
        raise AssertionError(f"{name} cannot be reached by Tab")

    def until_shown(self, selectors: Sequence[str]) -> None:
        """Wait until all of these take room on the page."""
        self.until(lambda: all(self.shows(selector) for selector in selectors))

    def until_gone(self, selector: str) -> None:
        """Wait until nothing of this kind takes room."""
        self.until(lambda: not self.shows(selector))

    def click(self, selector: str) -> None:
        """Click where only the mouse serves."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()
