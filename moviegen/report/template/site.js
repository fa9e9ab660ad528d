// What a page can do beyond being read. Without scripts all of it is there as text, links and players.
(() => {
  const root = document.documentElement;
  const remembered = name => { try { return localStorage.getItem(name); } catch { return null; } };
  const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window */ } };
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Before anything is drawn: "light" or "dark"; neither is the system's.
  function useTheme(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }
  useTheme(remembered("theme"));

  document.addEventListener("DOMContentLoaded", () => {
    root.classList.add("scripted");
    all(".tools, .menu, .search").forEach(part => { part.hidden = false; });
    themes();
    code();
    menu();
    search();
    previews();
    videos();
    scrolling();
  });

  function themes() {
    const choice = document.getElementById("theme");
    choice.value = root.dataset.theme ?? "system";
    choice.addEventListener("change", () => { remember("theme", choice.value); useTheme(choice.value); });
  }

  function code() {
    const button = document.getElementById("all-code"), cells = all("details.code");
    button.hidden = !cells.length;
    function show(isShown) {
      cells.forEach(cell => { cell.open = isShown; });
      button.setAttribute("aria-pressed", isShown);
      button.textContent = isShown ? "Hide all code" : "Show all code";
    }
    if (remembered("code") === "shown") show(true);
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") === "false";
      remember("code", isShown ? "shown" : "hidden");
      show(isShown);
    });
  }

  function menu() {
    const button = document.querySelector(".menu"), contents = document.getElementById("contents");
    function show(isShown) {
      button.setAttribute("aria-expanded", isShown);
      contents.classList.toggle("open", isShown);
    }
    button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
    contents.addEventListener("click", event => { if (event.target.closest("a")) show(false); });
  }

  // The index is a script of its own, loaded when it is first needed: pages from disk may not fetch data.
  function search() {
    const input = document.getElementById("search"), found = document.getElementById("found");
    if (!input) return;
    let loading;
    const load = () => loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "search.js";
      script.onload = () => resolve(window.searchIndex);
      script.onerror = reject;
      document.head.append(script);
    });
    const plain = text => text.toLowerCase().normalize("NFKD");
    function show(entries, words) {
      const ranked = entries.map(([page, title, anchor, heading, text]) => {
        const [head, body] = [plain(`${heading} ${title}`), plain(text)];
        const scores = words.map(word => (head.includes(word) ? 10 : 0) + Math.min(body.split(word).length - 1, 5));
        const score = scores.includes(0) ? 0 : scores.reduce((sum, one) => sum + one, 0);
        return { page, title, anchor, heading, text, score, at: body.indexOf(words[0]) };
      }).filter(one => one.score).sort((one, other) => other.score - one.score);
      const list = document.createElement("ol");
      for (const one of ranked.slice(0, 12)) {
        const item = document.createElement("li"), link = document.createElement("a"), place = document.createElement("small");
        link.href = one.page + (one.anchor && "#" + one.anchor);
        link.textContent = one.heading;
        const start = one.at > 40 ? one.text.indexOf(" ", one.at - 40) + 1 : 0;
        place.textContent = (one.anchor ? one.title + ": " : "") + (start ? "… " : "") + one.text.slice(start, start + 110) + " …";
        item.append(link, place);
        list.append(item);
      }
      const count = document.createElement("p");
      count.textContent = ranked.length ? `${ranked.length} section${ranked.length > 1 ? "s" : ""}` : "Nothing was found.";
      found.replaceChildren(count, list);
    }
    async function look() {
      const words = plain(input.value).split(/\s+/).filter(Boolean);
      if (!words.length) return found.replaceChildren();
      try {
        const entries = await load();
        show(entries, words);
      } catch {
        found.textContent = "The index, search.js, is not beside this page.";
      }
    }
    input.addEventListener("input", look);
    input.addEventListener("focus", () => load().catch(() => {}));
    input.addEventListener("keydown", event => { if (event.key === "Escape") { input.value = ""; look(); } });
    document.addEventListener("keydown", event => {
      if (event.key === "/" && !event.target.closest("input, select, textarea")) { event.preventDefault(); input.focus(); }
    });
  }

  // Beside a link: the figure or table of this page that it leads to, or the words of what is elsewhere.
  function previews() {
    const box = document.createElement("aside");
    box.className = "preview";
    box.setAttribute("aria-hidden", "true");
    box.hidden = true;
    document.body.append(box);
    let waiting;
    function content(link) {
      if (link.dataset.preview) return document.createTextNode(link.dataset.preview);
      const address = link.getAttribute("href");
      const target = address.startsWith("#") && document.getElementById(decodeURIComponent(address.slice(1)));
      if (!target || !target.matches("figure.card, li") || target.contains(link)) return null;
      const copy = target.cloneNode(true);
      copy.removeAttribute("id");
      return copy;
    }
    function show(link) {
      const shown = content(link);
      if (!shown) return;
      box.replaceChildren(shown);
      box.hidden = false;
      const at = link.getBoundingClientRect(), size = box.getBoundingClientRect();
      const isAbove = at.bottom + size.height + 12 > innerHeight && at.top > size.height + 12;
      box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
      box.style.top = `${isAbove ? at.top - size.height - 8 : at.bottom + 8}px`;
    }
    function hide() { clearTimeout(waiting); box.hidden = true; }
    for (const link of all("main a[href]")) {
      link.addEventListener("pointerenter", event => {
        if (event.pointerType === "mouse") waiting = setTimeout(show, 200, link);
      });
      link.addEventListener("focus", () => { if (link.matches(":focus-visible")) show(link); });
      ["pointerleave", "blur", "click"].forEach(name => link.addEventListener(name, hide));
    }
    document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
    document.addEventListener("scroll", hide, { passive: true });
  }

  // Videos play while they are seen, unless the reader stopped them or asks for less motion.
  function videos() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)"), seen = new Set(), stopped = new Set();
    const turn = player => {
      if (seen.has(player) && !calm.matches && !stopped.has(player)) player.play().catch(() => {});
      else player.pause();
    };
    const watch = new IntersectionObserver(entries => entries.forEach(({ target, isIntersecting }) => {
      seen[isIntersecting ? "add" : "delete"](target);
      turn(target);
    }), { threshold: 0.5 });
    for (const player of all("main video")) {
      barsOnDemand(player, calm);
      player.addEventListener("pause", () => { if (seen.has(player) && !calm.matches) stopped.add(player); });
      player.addEventListener("play", () => stopped.delete(player));
      watch.observe(player);
    }
    calm.addEventListener("change", () => seen.forEach(turn));
  }

  // A small player's bars would hide what it plays: they show under the pointer and by keys, or where nothing moves.
  function barsOnDemand(player, calm) {
    player.tabIndex = 0;
    const show = () => { player.controls = calm.matches || player.matches(":hover, :focus-within"); };
    ["pointerenter", "pointerleave", "focusin", "focusout"].forEach(name => player.addEventListener(name, show));
    calm.addEventListener("change", show);
    show();
  }

  // What is wider than its box is scrolled by keys, too.
  function scrolling() {
    const boxes = all(".scroll, .plot, .formula, pre");
    const mark = () => boxes.forEach(box => {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
    mark();
    addEventListener("resize", mark);
    all("details").forEach(details => details.addEventListener("toggle", mark));
  }
})();
