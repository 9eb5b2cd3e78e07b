"""A page in a browser: what it shows, keys, the pointer, and the scripts that walk over it."""

from selenium.webdriver.common.action_chains import ActionChains

AFTER_DRAWING = "const done = arguments[arguments.length - 1]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
CONTRASTS = """
const light = (rgb) => rgb.map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
  .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const [red, green, blue, alpha = 1] = parts(getComputedStyle(one).backgroundColor);
    if (alpha === 1) return [red, green, blue];
  }
};
const poor = [];
let count = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, style = getComputedStyle(element);
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest('script, :disabled')) continue;
  count++;
  const [a, b] = [light(parts(style.color).slice(0, 3)), light(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${element.tagName} ${element.className} ${walker.currentNode.textContent}`);
}
return [count, poor];
"""
WALK = """
const done = arguments[0], result = [], slider = document.getElementById('scrub');
const texts = (query) => [...document.querySelectorAll(query)].map((one) => one.textContent);
async function walk() {
  for (let t = 0; t <= Number(slider.max); t++) {
    slider.value = t;
    slider.dispatchEvent(new Event('input'));
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    result.push({
      token: texts('#card-token')[0], facts: texts('#card-facts dd'), tokens: texts('#candidates bdi'), probs: texts('#candidates b'),
      sampled: texts('#candidates small'), mlp: texts('.column.mlp_norm .bar b'), entropy: texts('.column.attention_entropy .bar b'),
      residual: texts('.column.residual_norm .bar b'), lens: texts('#lens-note')[0], attention: texts('#text-note')[0],
    });
  }
  done(result);
}
walk();
"""


def drawn(browser):
    browser.execute_async_script(
        "const done = arguments[0]; const wait = () => document.querySelector('main').hidden ? setTimeout(wait, 10) : done(); wait();"
    )
    browser.execute_async_script(AFTER_DRAWING)


def text(browser, query):
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", query)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()
    browser.execute_async_script(AFTER_DRAWING)


def hover(browser, query, x=None, y=None):
    """What the tooltip says with the pointer on the middle of an element, or at a place in it."""
    browser.execute_script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", query)
    browser.execute_async_script(AFTER_DRAWING)  # scrolling hides a tooltip
    box = browser.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", query
    )
    at = box[0] + (box[2] / 2 if x is None else x), box[1] + (box[3] / 2 if y is None else y)
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": at[0], "y": at[1]})
    return browser.execute_script("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.innerText")


def address(browser):
    """The address, once the page has written it."""
    browser.execute_async_script("setTimeout(arguments[0], 260)")
    return browser.execute_script("return location.hash")
