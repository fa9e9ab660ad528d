"""What a reader would see go wrong on a page: each check returns the faults it found, in words."""

from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

NEARBY = ("file:", "data:", "blob:")
NARROW = 390  # CSS pixels, a telephone's

PICTURES = """async () => {
  const broken = [];
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => broken.push(image.alt || image.src.slice(0, 80)));
  }
  return broken;
}"""
STARTED = "(video, patience) => new Promise(done => { setTimeout(() => done(!video.paused), patience); })"
ADVANCES = """(video, patience) => new Promise(done => {
  const began = video.currentTime, until = performance.now() + patience;
  const look = () => video.currentTime != began ? done(true) : performance.now() > until ? done(false)
    : setTimeout(look, 30);
  look();
})"""
ANCHORS = """() => ({
  ids: [...document.querySelectorAll("[id]")].map(one => one.id),
  links: [...document.querySelectorAll("a[href]")].map(one => one.href),
})"""
WITHOUT_SLIDERS = "input[type=range] { opacity: 0 !important; }"
TOO_WIDE = """width => {
  const reaches = one => one.getBoundingClientRect().right > width + 0.5;
  const scrolls = one => getComputedStyle(one).overflowX != "visible";
  const inside = one => one.parentElement && one.parentElement != document.body
    && (scrolls(one.parentElement) || inside(one.parentElement));
  return document.documentElement.scrollWidth <= width ? [] : ["the page", ...[...document.querySelectorAll("body *")]
    .filter(one => reaches(one) && !inside(one))
    .map(one => `${one.tagName} ${one.className} ${one.textContent.trim().slice(0, 40)}`)];
}"""


def watch(page):
    """What the browser reports from now on: errors in the console, what is missing, what is asked of a network."""
    faults = []

    def requested(request):
        if not request.url.startswith(NEARBY):
            faults.append(f"asks a network: {request.url}")

    page.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"does not load: {request.url[:200]}"))
    page.on("request", requested)
    return faults


def open_details(page):
    """Unfolds what is folded, so that it is looked at too."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")


def broken_pictures(page):
    """Images that the browser cannot show."""
    return page.evaluate(PICTURES)


def still_videos(page, patience=5000):
    """Videos that do not move once they are in view; what waits for the reader is started by the space bar."""
    still = []
    for video in page.locator("video:visible").all():
        video.scroll_into_view_if_needed()
        if not video.evaluate(STARTED, 200):
            video.press("Space")
        if not video.evaluate(ADVANCES, patience):
            still.append(video.get_attribute("src") or "a video without an address")
    return still


def anchors(page):
    """The ids of a page and the addresses it links to."""
    return page.evaluate(ANCHORS)


def doubled_ids(ids):
    """Ids that more than one element has."""
    return sorted({one for one in ids if ids.count(one) > 1})


def dead_links(links, ids_of):
    """Links to files that are not there, or to what no element of their page is called.

    Args:
        links: whole addresses.
        ids_of: the ids of each page that was read, by its path.
    """
    dead = []
    for link in sorted(set(links)):
        parts = urlsplit(link)
        path = url2pathname(parts.path)
        if parts.scheme != "file":
            continue
        lacks_anchor = path in ids_of and parts.fragment and unquote(parts.fragment) not in ids_of[path]
        if lacks_anchor or not Path(path).exists():
            dead.append(link)
    return dead


def stuck_sliders(page):
    """Sliders that change nothing in their figure, beside themselves."""
    stuck = []
    page.evaluate("document.querySelectorAll('video').forEach(one => one.pause())")
    for slider in page.locator("input[type=range]:visible").all():
        figure = slider.locator("xpath=(ancestor::main | ancestor::figure)[last()]")
        before = figure.screenshot(style=WITHOUT_SLIDERS)
        at = slider.input_value()
        slider.press("ArrowLeft")
        if slider.input_value() == at:  # it stood at its left end
            slider.press("ArrowRight")
        if slider.input_value() == at or figure.screenshot(style=WITHOUT_SLIDERS) == before:
            stuck.append(slider.evaluate("one => (one.labels[0] ?? one).outerHTML.slice(0, 120)"))
    return stuck


def inaccessible(page, rules=None):
    """What axe-core finds, of any impact.

    Args:
        rules: names of those to check; default: all that axe-core has on.
    """
    from axe_playwright_python.sync_playwright import Axe

    # preload: it would fetch the stylesheet by a script, which no browser allows of a file
    options = {"preload": False, "resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']} ({one['impact']}), {len(one['nodes'])} times, first {one['nodes'][0]['html'][:120]}: "
        f"{one['nodes'][0]['failureSummary']}"
        for one in found
    ]


def too_wide(page):
    """What reaches beyond the right edge of a page that scrolls sideways."""
    return page.evaluate(TOO_WIDE, page.viewport_size["width"])[:5]
