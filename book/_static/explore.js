/* Look into the heads of a run: the numbers stand in the page, and this shows them for a prompt, a head, an exchange and
   a token. All texts are set as text. Without it the page shows the first prompt in the first head. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("explore");
  if (!root) return;
  const data = JSON.parse(root.querySelector("script").textContent);
  const find = (selector) => root.querySelector(selector);
  const SVG = "http://www.w3.org/2000/svg";
  const BUTTONS = ".explore-token";
  const FULL = 0.05; // attention: a bar is full at the largest of a prompt, but not of less than this
  const state = { prompt: 0, head: 0, part: "none", token: null };

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const bdi = (text) => make("bdi", {}, text);
  const known = (value) => typeof value === "number";
  const fixed = (value, digits = 2, sign = false) => {
    if (!known(value)) return "not known";
    const text = Math.abs(value).toFixed(digits);
    const zero = Number(text) === 0;
    return (value < 0 && !zero ? "-" : sign ? "+" : "") + text;
  };
  const percent = (value) => (known(value) ? `${fixed(100 * value, 1)}%` : "not known");
  const probability = (margin) => (known(margin) ? 1 / (1 + Math.exp(-margin)) : null);
  const many = data.labels.length > 2; // then a prompt stands there once for each label that it can be moved to
  const prompt = () => data.prompts[state.prompt];
  const head = () => data.heads[state.head].head;
  const coloured = (element, label) => {
    const number = data.labels.indexOf(label);
    element.classList.add("explore-coloured");
    for (const scheme of ["light", "dark"]) element.style.setProperty(`--${scheme}`, `var(--${scheme}-${number})`);
    return element;
  };

  /* The numbers of the label in a line, by name; `weight` is what the exchange leaves of it. */
  const numbers = (line) => {
    const row = prompt().numbers[head()][line];
    const named = Object.fromEntries(data.numbers.map((name, i) => [name, row[i]]));
    const moved = { ...data.moved_weights, "keys-values": data.moved_weights.keys }[state.part];
    return { ...named, weight: moved ? named[moved] : named.weight };
  };
  const looksElsewhere = () => state.part !== "none" && state.part !== "values";
  const says = (line, value) => {
    const own = prompt().lines[line][1];
    if (!known(value) || value === 0) return "";
    return value > 0 ? own : many ? data.others : data.labels.find((label) => label !== own);
  };

  /* What a reader is told. */
  const exchanged = () => {
    const own = prompt();
    if (state.part === "query-same" && own.same === own.text) return ["its own query: no other has its label"];
    if (state.part === "query-other") return ["the query of “", bdi(own.other), "”, whose label is ", bdi(own.towards)];
    if (state.part === "query-same") return ["the query of “", bdi(own.same), "”, whose label is ", bdi(own.label), ", too"];
    return [`${data.parts[state.part]} exchanged`];
  };
  const answer = (margin) => {
    if (!known(margin)) return ["an answer that is not known"];
    if (margin === 0) return ["neither label"];
    const label = margin > 0 ? prompt().label : prompt().towards;
    return [bdi(label), ` (P ${percent(probability(Math.abs(margin)))} between the two)`];
  };
  const sayAnswer = () => {
    const margins = prompt().margins;
    const before = margins[data.intact].none;
    const asked = ["“", bdi(prompt().text), "” is ", bdi(prompt().label), ". "];
    const between = many ? ["of ", bdi(prompt().label), " and ", bdi(prompt().towards), " "] : [];
    if (state.part === "none") {
      find(".explore-answer").replaceChildren(
        ...asked, `With nothing exchanged the margin is ${fixed(before)} logits, and `, ...between,
        "the model answers ", ...answer(before), ".");
      return;
    }
    const [own, all] = [margins[head()][state.part], margins[data.together][state.part]];
    find(".explore-answer").replaceChildren(
      ...asked, ...(many ? ["Between ", bdi(prompt().label), " and ", bdi(prompt().towards), ": with "] : ["With "]),
      ...exchanged(), `, in head ${head()} alone, the margin goes from ${fixed(before)} to `,
      `${fixed(own)}: `, ...answer(own), `. In all ${data.together} it goes to ${fixed(all)}: `, ...answer(all), ".");
  };
  const rank = (line) => {
    const scores = prompt().lines.map((_, i) => numbers(i).score);
    return 1 + scores.filter((score) => score > scores[line]).length;
  };
  const sayToken = () => {
    const said = find(".explore-said");
    if (state.token === null) {
      const total = (label) => prompt().lines.reduce(
        (sum, line, i) => sum + (line[1] === label ? numbers(i).weight || 0 : 0), 0);
      said.replaceChildren(
        `Of its attention, head ${head()} gives `, ...data.labels.flatMap((label, i) => [
          i ? (i + 1 < data.labels.length ? ", " : " and ") : "", percent(total(label)), " to ", bdi(label), " labels"]), ".");
      return;
    }
    const [text, line, kind] = prompt().tokens[state.token];
    const where = line < prompt().lines.length ? `in line ${line + 1}` : "in the last line";
    if (kind !== "label") {
      const weight = prompt().weights[head()][state.token];
      said.replaceChildren("“", bdi(text), `” ${where}: ${percent(weight)} of the attention of head ${head()}`,
        looksElsewhere() ? " with nothing exchanged." : ".");
      return;
    }
    const own = numbers(line);
    const label = says(line, own.value);
    said.replaceChildren(
      bdi(prompt().lines[line][1]), " behind “", bdi(prompt().lines[line][0]), `” ${where}: ${percent(own.weight)} of the `,
      `attention of head ${head()}${looksElsewhere() ? " after the exchange" : ""}. Its q·k is ${fixed(own.score)}, number `,
      `${rank(line)} of ${prompt().lines.length}; its value `,
      ...(label ? ["speaks for ", bdi(label), ` by ${fixed(Math.abs(own.value))} logits`] : ["speaks for no label"]),
      `; what arrives from it moves the margin by ${fixed(own.moved, 2, true)}.`);
  };

  /* The prompt, line by line. */
  const tokenButton = (token, number, most) => {
    const [text, line, kind] = token;
    const weight = kind === "label" ? numbers(line).weight : looksElsewhere() ? 0 : prompt().weights[head()][number];
    const button = make("button", {
      type: "button", class: `explore-token explore-${kind}`,
      tabindex: number === (state.token ?? 0) ? 0 : -1, "data-token": number,
    }, bdi(text));
    button.style.setProperty("--shade", `${Math.round(36 * Math.sqrt((weight || 0) / most))}%`);
    return kind === "label" ? coloured(button, prompt().lines[line][1]) : button;
  };
  const cells = (line, most) => {
    const own = numbers(line);
    const bar = coloured(make("span", { class: "explore-bar" }), prompt().lines[line][1]);
    bar.style.setProperty("--length", `${(100 * (own.weight || 0)) / most}%`);
    const label = says(line, own.value);
    return [
      make("td", { class: "explore-weight" }, make("span", {}, percent(own.weight)), bar),
      make("td", {}, fixed(own.score)),
      make("td", {}, ...(label ? [bdi(label), " "] : []), known(own.value) ? fixed(Math.abs(own.value)) : "not known"),
      make("td", {}, fixed(own.moved, 2, true)),
    ];
  };
  const lines = () => {
    const { tokens, lines: demonstrations, weights } = prompt();
    const largest = Math.max(FULL, ...demonstrations.map((_, i) => numbers(i).weight || 0));
    const all = looksElsewhere() ? [largest] : [largest, ...weights[head()].map((weight) => weight || 0)];
    const rows = [...demonstrations, null].map((_, line) => {
      const own = tokens.map((token, i) => [token, i]).filter(([token]) => token[1] === line);
      const words = make("th", { scope: "row" }, ...own.map(([token, i]) => tokenButton(token, i, Math.max(...all))));
      const last = line === demonstrations.length;
      return make("tr", { "data-line": line }, words, ...(last ? [make("td", { colspan: 4 })] : cells(line, largest)));
    });
    find(".explore-lines tbody").replaceChildren(...rows);
    find(".explore-lines caption").replaceChildren(
      `What head ${head()} does at the labels, seen from the last position`,
      looksElsewhere() ? "; attention after the exchange, all else with nothing exchanged" : "");
    arcs();
  };
  const arcs = () => {
    const svg = find(".explore-lines svg");
    const rows = [...root.querySelectorAll(".explore-lines tbody tr")];
    const middle = (row) => row.offsetTop + row.offsetHeight / 2;
    const [from, width] = [middle(rows[rows.length - 1]), svg.clientWidth];
    svg.style.height = `${find(".explore-lines table").offsetHeight}px`;
    svg.replaceChildren(...prompt().lines.map((line, i) => {
      const path = document.createElementNS(SVG, "path");
      const to = middle(rows[i]);
      const reach = width * (1 - 0.85 * Math.min(1, (from - to) / from));
      path.setAttribute("d", `M${width} ${from} C${reach} ${from} ${reach} ${to} ${width} ${to}`);
      path.setAttribute("class", chosenLine() === i ? "explore-chosen" : "");
      path.setAttribute("stroke-width", Math.max(0.4, 12 * (numbers(i).weight || 0)).toFixed(2));
      return coloured(path, line[1]);
    }));
  };
  const chosenLine = () => (state.token === null ? null : prompt().tokens[state.token][1]);

  const margins = () => {
    const all = prompt().margins;
    find(".explore-margins thead").replaceChildren(make("tr", {}, ...["exchanged", `head ${head()}`, data.together].map(
      (words) => make("th", { scope: "col" }, words))));
    find(".explore-margins tbody").replaceChildren(...Object.entries(data.parts).map(([part, words]) => {
      const own = part === "none" ? [all[data.intact], all[data.intact]] : [all[head()], all[data.together]];
      return make("tr", { class: part === state.part ? "explore-chosen" : null },
        make("th", { scope: "row" }, words), ...own.map((margin) => make("td", {},
          `${fixed(margin[part])} (${percent(probability(margin[part]))})`)));
    }));
  };

  /* What a reader does. */
  const choose = (token, focus = false) => {
    state.token = token;
    for (const button of root.querySelectorAll(BUTTONS)) {
      const own = Number(button.dataset.token) === token;
      button.tabIndex = own ? 0 : -1;
      if (own && focus) button.focus();
    }
    for (const row of root.querySelectorAll(".explore-lines tbody tr")) {
      row.classList.toggle("explore-chosen", Number(row.dataset.line) === chosenLine());
    }
    arcs();
    sayToken();
  };
  /* The label of a line if the token that is left is one, else the token at the same place of the line. */
  const along = (token, step) => {
    const { tokens } = prompt();
    const line = tokens[token][1] + step;
    const there = tokens.map((_, i) => i).filter((i) => tokens[i][1] === line);
    if (!there.length) return token;
    if (tokens[token][2] === "label") return there.find((i) => tokens[i][2] === "label") ?? there[there.length - 1];
    const place = tokens.slice(0, token).filter((own) => own[1] === tokens[token][1]).length;
    return there[Math.min(place, there.length - 1)];
  };
  const keys = {
    ArrowRight: (token) => Math.min(token + 1, prompt().tokens.length - 1),
    ArrowLeft: (token) => Math.max(token - 1, 0),
    ArrowDown: (token) => along(token, 1),
    ArrowUp: (token) => along(token, -1),
    Home: () => 0,
    End: () => prompt().tokens.length - 1,
  };
  const table = find(".explore-lines table");
  const tokenOf = (event) => event.target.closest(BUTTONS)?.dataset.token;
  table.addEventListener("keydown", (event) => {
    if (tokenOf(event) === undefined || !keys[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    choose(keys[event.key](Number(tokenOf(event))), true);
  });
  for (const kind of ["focusin", "mouseover", "click"]) {
    table.addEventListener(kind, (event) => {
      const token = tokenOf(event);
      if (token !== undefined && Number(token) !== state.token) choose(Number(token));
    });
  }

  const select = (id, words, options, change) => {
    const field = make("select", { id }, ...options.map((text, i) => make("option", { value: i }, text)));
    field.addEventListener("change", () => {
      change(field.selectedIndex);
      show();
    });
    return make("label", { for: id }, `${words} `, field);
  };
  const radios = () => {
    const choices = Object.entries(data.parts).map(([part, words]) => {
      const field = make("input", { type: "radio", name: "explore-part", value: part, checked: part === state.part });
      field.addEventListener("change", () => {
        state.part = part;
        show();
      });
      return make("label", {}, field, ` ${words}`);
    });
    return make("fieldset", {}, make("legend", {}, "Exchange"), ...choices);
  };
  const controls = find(".explore-controls");
  controls.append(
    select("explore-prompt", "Query", data.prompts.map(
      (own) => `${own.text} (${own.label}${many ? `, towards ${own.towards}` : ""})`), (chosen) => {
      state.prompt = chosen;
      state.token = null;
    }),
    select("explore-head", "Head", data.heads.map((own) => `${own.head}: ${own.role}`), (chosen) => {
      state.head = chosen;
    }),
    radios());
  controls.hidden = false;

  const show = () => {
    lines();
    margins();
    sayAnswer();
    sayToken();
  };
  document.querySelector(".explore-still")?.setAttribute("hidden", "");
  root.classList.add("explore-live");
  show();
  new ResizeObserver(arcs).observe(table);
});
