"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const SITE = /^lib(?:64)?\/python[0-9.]+\/site-packages\//;
  const AT_ONCE = 400, PILLS = 4, FOLDED = 60, NARROW = 820;
  const STATES = ["missing", "failed", "patched", "unchanged", "skipped", ""];
  const UP = { path: false, dist: false, state: false, size: true, needs: true };
  const SORT_OF = { "store": "store", "other dist": "dist", "own dist": "dist", "driver": "driver", "missing": "missing" };
  let tree, chosenTree = 0, text = "", state = "", focus = null, sort = "state", down = false, whole = false;

  // The DOM inserts names as text and attributes, never as markup.
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  function draw(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  function size(bytes) {
    for (const unit of ["B", "kB", "MB"]) {
      if (bytes < 1000) return `${unit === "B" ? bytes : bytes.toFixed(1)} ${unit}`;
      bytes /= 1000;
    }
    return `${bytes.toFixed(2)} GB`;
  }

  // The state of the page is in its address: a link leads to what its sender saw.
  function remember() {
    const words = new URLSearchParams();
    const keep = (name, value) => { if (value) words.set(name, value); };
    keep("tree", chosenTree ? String(chosenTree) : "");
    keep("find", text); keep("state", state); keep("box", focus ? focus.id : "");
    if (sort !== "state" || down) keep("sort", `${down ? "-" : ""}${sort}`);
    history.replaceState(null, "", words.size ? `#${words}` : location.pathname + location.search);
  }
  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    const number = Number(words.get("tree") || 0);
    open(data.trees[number] ? number : 0);
    text = (words.get("find") || "").toLowerCase();
    byId("filter").value = text;
    state = words.get("state") || "";
    const order = words.get("sort") || "";
    if (order.replace("-", "") in UP) { sort = order.replace("-", ""); down = order.startsWith("-"); }
    const nodes = tree.graph ? tree.graph.nodes : [];
    focus = nodes.find((node) => node.id === words.get("box")) || null;
    pressed(); graph(); files();
  }

  function open(number) {
    tree = data.trees[number]; chosenTree = number;
    text = ""; state = ""; focus = null; whole = false;
    byId("filter").value = "";
    byId("tree").value = String(number);
    byId("tool").textContent = data.tool;
    byId("closing").textContent = tree.closing;
    byId("root").textContent = tree.root;
    byId("target").textContent = tree.target;
    counts(); missing(); lists(); findings(); choices(); graph(); store(); files();
  }

  function fits(file, name) { return name === "missing" ? file.lacks.length > 0 : file.state === name; }

  function counts() {
    byId("counts").replaceChildren(...tree.counts.map(([name, number, words]) => {
      const kind = name === "patched" ? "patched" : ["missing", "failed"].includes(name) ? "bad" : "";
      return make("div", { class: `count ${kind}` }, make("b", {}, String(number)), words);
    }));
    const shown = tree.counts.filter(([name]) => STATES.includes(name));
    byId("states").replaceChildren(...shown.map(([name, , words]) => {
      const number = tree.files.filter((file) => fits(file, name)).length;
      const label = name === "missing" ? "with a need not found" : words;
      const button = make("button", { "aria-pressed": "false", "data-state": name }, `${label} ${number}`);
      button.addEventListener("click", () => { state = state === name ? "" : name; pressed(); files(); });
      return button;
    }));
    pressed();
  }
  // The buttons stay, so that the keyboard's focus stays on the one that was pressed.
  function pressed() {
    for (const button of byId("states").children) button.setAttribute("aria-pressed", String(button.dataset.state === state));
  }

  function missing() {
    byId("missing-section").hidden = !tree.missing.length;
    const part = (title, lines) => lines.length ? [make("h4", {}, title), make("ul", { class: "path" }, ...lines.map((line) => make("li", {}, line)))] : [];
    byId("missing").replaceChildren(...tree.missing.map((library) => make("details", { class: "lack" },
      make("summary", {}, make("b", {}, library.soname), " ", library.advice),
      ...part("needed by", library.files),
      ...part("stops", library.stops.filter((path) => !library.files.includes(path))),
      ...part("searched in this order", library.considered))));
    if (tree.paste) byId("missing").append(make("p", {}, "To add all of them:"), make("pre", { tabindex: 0 }, tree.paste));
  }

  function list(name, entries, line) {
    byId(`${name}-section`).hidden = !entries.length;
    byId(name).replaceChildren(...entries.map((entry) => make("li", {}, ...line(...entry))));
  }
  function lists() {
    const path = (text) => make("span", { class: "path" }, text);
    list("optional", tree.optional, (soname, use, user, advice) => [make("b", {}, soname), `, ${use} `, path(user), ": ", advice]);
    list("opened", tree.opened, (soname, opener, library) => [make("b", {}, soname), ", opened by ", path(opener), ": ", path(library)]);
    list("grafts", tree.grafts, (goes, library, ...texts) => [path(library), goes ? " " : " stays: ", texts.join("; ")]);
    list("texts", tree.texts, (kind, file) => [`${kind} `, path(file)]);
  }

  function findings() {
    byId("findings-section").hidden = !tree.findings.length;
    byId("findings").replaceChildren(...tree.findings.map(([severity, path, text]) => make("li", {},
      make("span", { class: `pill ${severity}` }, severity), " ",
      make("span", { class: "path" }, path), path ? ": " : "", text)));
  }

  function store() {
    byId("store-section").hidden = !tree.store_paths.length;
    byId("store").replaceChildren(...tree.store_paths.map((path) => make("li", { class: "path" }, path)));
  }

  function choices() {
    const nodes = tree.graph ? tree.graph.nodes : [];
    const names = nodes.map((node) => node.id).sort((a, b) => a.localeCompare(b));
    byId("choose").replaceChildren(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
  }
  function choose(node) {
    focus = focus && node && focus.id === node.id ? null : node;
    if (folds()) graph();
    files();
  }
  function folds() {
    const dists = tree.graph ? tree.graph.nodes.filter((node) => node.sort === "dist").length : 0;
    return dists > FOLDED || (dists > 1 && document.documentElement.clientWidth < NARROW);
  }

  // Of many dists, and on a narrow screen, only what is chosen is drawn, between what needs it and what serves it.
  function neighbours(all) {
    const edges = all.edges.filter((edge) => focus && (edge.from === focus.id || edge.to === focus.id));
    const column = new Map(focus ? [[focus.id, 1]] : []);
    for (const edge of edges) {
      if (edge.to === focus.id) column.set(edge.from, 0);
      else column.set(edge.to, 2);
    }
    const used = [...new Set(column.values())].sort();
    const heights = new Map(), step = all.node.height + 14;
    const nodes = all.nodes.filter((node) => column.has(node.id)).map((node) => {
      const place = used.indexOf(column.get(node.id)), y = heights.get(place) || 0;
      heights.set(place, y + step);
      return { ...node, column: place, y };
    });
    const height = Math.max(0, ...heights.values());
    for (const node of nodes) node.y += (height - heights.get(node.column)) / 2;
    return { ...all, nodes, edges, columns: used.length, height };
  }

  function graph() {
    byId("graph-section").hidden = !tree.graph || !tree.graph.nodes.length;
    if (!tree.graph || !tree.graph.nodes.length) return;
    const drawn = folds() ? neighbours(tree.graph) : tree.graph;
    const apart = drawn.apart;
    byId("hint").textContent = (folds() ? "Choose a dist or a store path to see what it needs and what needs it." :
      "Point at a box to highlight its lines; click it to list its files below.") +
      (apart ? ` ${apart} ${apart === 1 ? "dist needs" : "dists need"} only libc and ${apart === 1 ? "its" : "their"} own libraries.` : "");
    byId("plane").hidden = !drawn.nodes.length;
    if (!drawn.nodes.length) return;
    const svg = byId("graph");
    const { width, height } = drawn.node;
    // The columns use the available width, up to a length of lines that is easy to follow.
    const aisles = Math.max(drawn.columns - 1, 1);
    const room = (svg.parentElement.clientWidth - 10 - drawn.columns * width) / aisles;
    const aisle = Math.min(Math.max(room, 110), 480);
    const whole = drawn.columns * width + aisles * aisle;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `-4 -4 ${whole + 8} ${drawn.height + 8}`);
    svg.setAttribute("width", whole + 8);
    svg.setAttribute("height", drawn.height + 8);
    const places = new Map(drawn.nodes.map((node) => [node.id, { ...node, x: node.column * (width + aisle) }]));
    const most = Math.max(1, ...drawn.edges.map((edge) => edge.files));
    const lines = drawn.edges.map((edge) => {
      const start = places.get(edge.from), end = places.get(edge.to);
      const back = end.x <= start.x;
      const x1 = start.x + width, y1 = start.y + height / 2, x2 = back ? end.x + width : end.x, y2 = end.y + height / 2;
      const bend = back ? x1 + 60 : (x1 + x2) / 2;
      const weight = 1.2 + 2.2 * Math.sqrt(edge.files / most);
      const line = draw("path", { class: `edge ${edge.sort}`, "stroke-width": weight, d: `M${x1},${y1} C${bend},${y1} ${bend},${y2} ${x2},${y2}` },
        draw("title", {}, edge.sonames.map(([name, number]) => `${name} (${number})`).join("\n")));
      svg.append(line);
      return [edge, line];
    });
    for (const node of places.values()) {
      const label = node.files ? `${node.files} ${node.files === 1 ? "file" : "files"}` : "";
      const room = label ? 23 : 33;
      const name = node.id.length > room ? `${node.id.slice(0, room - 1)}\u2026` : node.id;
      const box = draw("g", { class: `node ${node.sort}`, transform: `translate(${node.x},${node.y})`, tabindex: 0, role: "button", "data-node": node.id },
        draw("title", {}, node.id),
        draw("rect", { width, height }),
        draw("text", { x: 12, y: height / 2 + 4.5 }, name),
        draw("text", { x: width - 12, y: height / 2 + 4, class: "files", "text-anchor": "end" }, label));
      const light = (on) => {
        svg.classList.toggle("tracing", on);
        for (const element of svg.querySelectorAll(".lit")) element.classList.remove("lit");
        if (!on) return;
        const near = new Set([node.id]);
        for (const [edge, line] of lines) {
          if (edge.from !== node.id && edge.to !== node.id) continue;
          line.classList.add("lit");
          near.add(edge.from).add(edge.to);
        }
        for (const other of svg.querySelectorAll(".node")) if (near.has(other.dataset.node)) other.classList.add("lit");
      };
      box.addEventListener("pointerenter", () => light(true));
      box.addEventListener("pointerleave", () => light(false));
      box.addEventListener("click", () => choose(node));
      box.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(node); }
      });
      svg.append(box);
    }
  }

  function wanted(file) {
    if (state && !fits(file, state)) return false;
    if (focus && !(focus.sort === "dist" && file.dist === focus.id) && !file.needs.some((need) => need[2] === focus.id)) return false;
    if (!text) return true;
    return [file.path, file.dist, file.state, file.why, ...file.needs.flat()].some((word) => word.toLowerCase().includes(text));
  }

  function key(file) {
    if (sort === "needs") return file.needs.length;
    if (sort === "state") return STATES.indexOf(file.lacks.length ? "missing" : file.state);
    return file[sort];
  }

  function files() {
    byId("files-section").hidden = !tree.files.length;
    const found = tree.files.filter(wanted);
    found.sort((a, b) => {
      const left = key(a), right = key(b);
      const order = left < right ? -1 : left > right ? 1 : a.path < b.path ? -1 : 1;
      return down ? -order : order;
    });
    const some = whole ? found : found.slice(0, AT_ONCE);
    byId("files").replaceChildren(...(some.length ? some.map(row) :
      [make("tr", { class: "empty" }, make("td", { colspan: 5 }, "No matching files."))]));
    byId("shown").textContent = `${found.length} of ${tree.files.length} files`;
    byId("more").hidden = some.length === found.length;
    byId("choose").value = focus ? focus.id : "";
    byId("focus").hidden = !focus;
    byId("focus").textContent = focus ? `${focus.sort === "dist" ? "of or from" : "from"} ${focus.id} \u00d7` : "";
    for (const box of document.querySelectorAll(".node")) box.classList.toggle("chosen", Boolean(focus) && box.dataset.node === focus.id);
    for (const button of document.querySelectorAll("th button")) {
      const head = button.parentElement;
      if (button.dataset.sort === sort) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    remember();
  }

  function row(file) {
    const button = make("button", { "aria-expanded": "false", title: file.path }, file.path.replace(SITE, ""));
    const words = new Map(tree.counts.map(([name, , text]) => [name, text]));
    const word = words.get(file.state) || file.state;
    const origins = new Map();
    for (const [soname, origin, from] of file.needs) {
      if (from) origins.set(from, [...(origins.get(from) || [origin]), soname]);
    }
    const line = make("tr", {},
      make("td", { class: "file" }, button),
      make("td", { class: "dist" }, file.dist),
      make("td", { class: "state" }, ...(word ? [make("span", { class: `pill ${file.state}`, title: file.why }, word)] : []), " ",
        ...(file.lacks.length ? [make("span", { class: "pill missing", title: file.lacks.join("\n") }, "not found")] : [])),
      make("td", { class: "number" }, size(file.size)),
      make("td", { class: "origins" }, ...[...origins].slice(0, PILLS).map(([from, [origin, ...sonames]]) =>
        make("span", { class: `pill ${SORT_OF[origin] || "store"}`, title: sonames.join("\n") }, from)),
        origins.size > PILLS ? `and ${origins.size - PILLS} more` : ""));
    button.addEventListener("click", () => {
      const shut = button.getAttribute("aria-expanded") === "false";
      button.setAttribute("aria-expanded", String(shut));
      if (shut) line.after(detail(file)); else line.nextElementSibling.remove();
    });
    return line;
  }

  function detail(file) {
    const links = make("dl", { class: "links" });
    const tell = (name, value, kind = "") => { links.append(make("dt", {}, name), make("dd", { class: kind }, value || "(none)")); };
    if (file.why) tell("why", file.why);
    const [tag, path, interpreter] = file.before, [newTag, newPath, newInterpreter] = file.after;
    if (file.changed && `${tag} ${path}` !== `${newTag} ${newPath}`) {
      tell("search path", `${tag} ${path}`.trim(), path ? "old" : "");
      tell("", `${newTag} ${newPath}`.trim());
    } else if (path) tell("search path", `${tag} ${path}`);
    if (file.changed && interpreter !== newInterpreter) { tell("interpreter", interpreter, "old"); tell("", newInterpreter); }
    else if (interpreter) tell("interpreter", interpreter);
    for (const [entry, why] of file.dropped) tell("dropped", `${entry || "(empty)"}: ${why}`);
    const needs = make("table", { class: "needs" }, ...file.needs.map(([soname, origin, , library, note]) =>
      make("tr", {}, make("td", {}, soname), make("td", {}, make("span", { class: `pill ${SORT_OF[origin] || ""}` }, origin)),
        make("td", {}, library || note))));
    return make("tr", { class: "detail" }, make("td", { colspan: 5 }, links, needs));
  }

  byId("filter").addEventListener("input", (event) => { text = event.target.value.trim().toLowerCase(); files(); });
  byId("focus").addEventListener("click", () => { choose(null); byId("filter").focus(); });
  byId("choose").addEventListener("change", (event) => {
    focus = null;
    choose(tree.graph.nodes.find((node) => node.id === event.target.value) || null);
  });
  byId("more").addEventListener("click", () => { whole = true; files(); });
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      // Large numbers come first, names in their order.
      down = sort === button.dataset.sort ? !down : UP[button.dataset.sort];
      sort = button.dataset.sort;
      files();
    });
  }
  let drawnWidth = window.innerWidth;
  window.addEventListener("resize", () => {
    if (drawnWidth === window.innerWidth) return;  // a keyboard on the screen changes the height only
    drawnWidth = window.innerWidth;
    graph(); files();
  });
  window.addEventListener("hashchange", recall);
  if (data.trees.length > 1) {
    byId("chooser").hidden = false;
    byId("tree").append(...data.trees.map((entry, number) => make("option", { value: number }, entry.root)));
    byId("tree").addEventListener("change", (event) => { open(Number(event.target.value)); });
  }
  recall();
})();
