/* One button for a page's code, the same place in another model's chapter, a sidebar of one model, enlarged figures,
   and figures for dark pages. Without it all code is shown, and the links to other models lead to the heads of their
   pages. */
"use strict";
(() => {
  const root = document.documentElement;
  const remembered = (name) => {
    try { return localStorage.getItem(`twotowers-${name}`); } catch { return null; }
  };
  const remember = (name, value) => {
    try { localStorage.setItem(`twotowers-${name}`, value); } catch { /* not allowed here */ }
  };
  const asRemembered = () => root.classList.toggle("shows-code", remembered("code") === "shown");
  const again = [asRemembered]; /* what a page does anew that a browser has kept, when the reader comes back to it */
  root.classList.add("has-script");
  asRemembered();

  /* Paper is white: what is printed has the colours of light pages. */
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => { root.dataset.theme = theme; });

  /* Where the reader is: what the address names, else the last heading or figure above the middle of the window. */
  const place = () => {
    if (location.hash) return decodeURIComponent(location.hash.slice(1));
    const above = [...document.querySelectorAll("article section section[id], article figure[id]")]
      .filter((part) => part.getBoundingClientRect().top < innerHeight / 2);
    return scrollY > 0 && above.length ? above[above.length - 1].id : "";
  };
  /* Anchors of figures and verdicts begin with their run. */
  const translated = (anchor, from, to) =>
    anchor.replace(/^(fig|verdict)-(.*)$/, (whole, kind, rest) =>
      rest.startsWith(`${from}-`) ? `${kind}-${to}-${rest.slice(from.length + 1)}` : whole);

  const codeButton = (bar) => {
    if (!document.querySelector(".cell_input")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "code-button";
    const say = () => {
      const shown = root.classList.contains("shows-code");
      button.textContent = shown ? "Hide code" : "Show code";
      button.setAttribute("aria-pressed", String(shown));
    };
    again.push(say);
    button.addEventListener("click", () => {
      const shown = root.classList.toggle("shows-code");
      remember("code", shown ? "shown" : "hidden");
      say();
    });
    say();
    bar.append(button);
  };

  const modelLinks = (bar) => {
    for (const link of bar.querySelectorAll("a[data-run]")) {
      link.addEventListener("click", () => {
        remember("run", link.dataset.run);
        const anchor = translated(place(), bar.dataset.run, link.dataset.run);
        link.hash = anchor ? `#${anchor}` : "";
      });
    }
  };

  /* Parts of the sidebar that belong to a run are marked when the site is built; one run's are shown. */
  const sidebar = (own) => {
    const parts = [...document.querySelectorAll(".bd-sidebar-primary [data-run]")];
    const runs = new Set(parts.map((part) => part.dataset.run));
    const kept = remembered("run");
    const shown = own || (runs.has(kept) ? kept : null);
    if (shown) for (const part of parts) part.hidden = part.dataset.run !== shown;
  };

  const enlarged = () => {
    const dialog = document.createElement("dialog");
    dialog.className = "enlarged";
    dialog.setAttribute("aria-label", "Figure, enlarged");
    dialog.addEventListener("click", () => dialog.close());
    document.body.append(dialog);
    for (const image of document.querySelectorAll("article img:not(.small-figure)")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "enlarge-button";
      button.textContent = "Enlarge";
      const open = () => {
        const close = document.createElement("button");
        close.type = "button";
        close.textContent = "Close";
        const copy = image.cloneNode();
        copy.removeAttribute("style");
        dialog.replaceChildren(close, copy);
        dialog.showModal();
      };
      button.addEventListener("click", open);
      if (!image.closest("a")) image.addEventListener("click", open);
      (image.closest(".figure-scroll, a") || image).after(button);
    }
  };

  /* A box that scrolls can be reached and is named; one that does not is in nobody's way. */
  const scrolled = () => {
    const named = { tabindex: "0", role: "group", "aria-label": "Figure, to be scrolled" };
    const goesOn = (box) =>
      box.classList.toggle("goes-on", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    const boxes = ".figure-scroll, .pst-scrollable-table-container"; /* the theme names the second kind */
    const watch = new ResizeObserver((seen) => {
      for (const { target } of seen) {
        const box = target.closest(boxes);
        goesOn(box);
        if (!box.matches(".figure-scroll")) continue;
        const scrolls = box.scrollWidth > box.clientWidth;
        for (const [name, value] of Object.entries(named)) {
          if (scrolls) box.setAttribute(name, value);
          else box.removeAttribute(name);
        }
      }
    });
    for (const box of document.querySelectorAll(boxes)) {
      box.addEventListener("scroll", () => goesOn(box), { passive: true });
      watch.observe(box);
      watch.observe(box.querySelector("img, table"));
    }
  };

  /* An SVG of ours takes its colours for dark pages when its address ends in #dark. */
  const painted = () => {
    const pictures = [...document.querySelectorAll("article img, article picture source")]
      .map((picture) => [picture, picture.matches("img") ? "src" : "srcset"])
      .filter(([picture, of]) => /\.svg(#|$)/.test(picture[of]));
    const paint = (dark) => {
      for (const [picture, of] of pictures) {
        const address = picture[of].replace(/#.*$/, "") + (dark ? "#dark" : "");
        if (picture[of] !== address) picture[of] = address;
      }
    };
    const asThePage = () => paint(root.dataset.theme === "dark");
    asThePage();
    new MutationObserver(asThePage).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const bar = document.querySelector(".page-bar");
    const own = bar && bar.dataset.run;
    const ofRun = () => {
      if (own) remember("run", own);
      sidebar(own);
    };
    if (bar) {
      codeButton(bar);
      modelLinks(bar);
    }
    ofRun();
    again.push(ofRun);
    enlarged();
    scrolled();
    painted();
    addEventListener("pageshow", (shown) => {
      if (shown.persisted) for (const one of again) one();
    });
    /* Headings that the address names are above code that has just been hidden. */
    if (location.hash) {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target) target.scrollIntoView();
    }
  });
})();
