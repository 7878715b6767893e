"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const SITE = /^lib(?:64)?\/python[0-9.]+\/site-packages\//;
  const AT_ONCE = 400, PILLS = 4;
  const STATES = ["missing", "failed", "patched", "unchanged", "skipped"];
  const SORT_OF = { "store": "store", "other dist": "dist", "own dist": "dist", "driver": "driver", "missing": "missing" };
  let tree, text = "", state = "", focus = null, sort = "state", down = false, whole = false;

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

  function open(number) {
    tree = data.trees[number];
    text = ""; state = ""; focus = null; whole = false;
    byId("filter").value = "";
    byId("tool").textContent = data.tool;
    byId("closing").textContent = tree.closing;
    byId("root").textContent = tree.root;
    byId("target").textContent = tree.target;
    counts(); missing(); optional(); findings(); graph(); store(); files();
  }

  function count(name) { return tree.files.filter((file) => file.state === name).length; }

  function counts() {
    const present = STATES.map((name) => [name, count(name)]).filter(([, number]) => number);
    const word = (name) => (name === "patched" && !tree.applied ? "to patch" : name);
    byId("counts").replaceChildren(...present.map(([name, number]) => {
      const kind = name === "patched" ? "patched" : ["missing", "failed"].includes(name) ? "bad" : "";
      return make("div", { class: `count ${kind}` }, make("b", {}, String(number)), word(name));
    }));
    byId("states").replaceChildren(...present.map(([name, number]) => {
      const button = make("button", { "aria-pressed": String(state === name), "data-state": name }, `${word(name)} ${number}`);
      button.addEventListener("click", () => { state = state === name ? "" : name; counts(); files(); });
      return button;
    }));
  }

  function missing() {
    byId("missing-section").hidden = !tree.missing.length;
    byId("missing").replaceChildren(...tree.missing.map((library) => {
      const more = library.files.length > 3 ? ` and ${library.files.length - 3} more` : "";
      return make("div", { class: "lack" },
        make("h3", {}, library.soname),
        make("p", {}, "needed by ", make("span", { class: "path" }, library.files.slice(0, 3).join(", ")), more),
        make("p", {}, library.advice),
        make("details", {}, make("summary", {}, "search order"),
          make("ol", {}, ...library.considered.map((line) => make("li", {}, line)))));
    }));
    if (tree.paste) byId("missing").append(make("p", {}, "To add all of them:"), make("pre", {}, tree.paste));
  }

  function optional() {
    byId("optional-section").hidden = !tree.optional.length;
    byId("optional").replaceChildren(...tree.optional.map(([soname, opener, advice]) => make("li", {},
      make("b", {}, soname), ", opened by ", make("span", { class: "path" }, opener), ": ", advice)));
    byId("texts-section").hidden = !tree.texts.length;
    byId("texts").replaceChildren(...tree.texts.map(([kind, path]) => make("li", {},
      `${kind} `, make("span", { class: "path" }, path))));
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

  function graph() {
    const drawn = tree.graph;
    byId("graph-section").hidden = !drawn || !drawn.nodes.length;
    if (!drawn || !drawn.nodes.length) return;
    const apart = drawn.apart;
    byId("hint").textContent = "Point at a box to highlight its lines; click it to list its files below." +
      (apart ? ` ${apart} ${apart === 1 ? "dist needs" : "dists need"} only libc and ${apart === 1 ? "its" : "their"} own libraries.` : "");
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
    const most = Math.max(...drawn.edges.map((edge) => edge.files));
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
      const choose = () => { focus = focus && focus.id === node.id ? null : node; files(); };
      box.addEventListener("pointerenter", () => light(true));
      box.addEventListener("pointerleave", () => light(false));
      box.addEventListener("click", choose);
      box.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
      });
      svg.append(box);
    }
  }

  function wanted(file) {
    if (state && file.state !== state) return false;
    if (focus && !(focus.sort === "dist" && file.dist === focus.id) && !file.needs.some((need) => need[2] === focus.id)) return false;
    if (!text) return true;
    return [file.path, file.dist, file.state, file.why, ...file.needs.flat()].some((word) => word.toLowerCase().includes(text));
  }

  function key(file) {
    if (sort === "needs") return file.needs.length;
    if (sort === "state") return STATES.indexOf(file.state);
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
    byId("focus").hidden = !focus;
    byId("focus").textContent = focus ? `${focus.sort === "dist" ? "of or from" : "from"} ${focus.id} \u00d7` : "";
    for (const box of document.querySelectorAll(".node")) box.classList.toggle("chosen", Boolean(focus) && box.dataset.node === focus.id);
    for (const button of document.querySelectorAll("th button")) {
      const head = button.parentElement;
      if (button.dataset.sort === sort) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function row(file) {
    const button = make("button", { "aria-expanded": "false", title: file.path }, file.path.replace(SITE, ""));
    const word = file.state === "patched" && !tree.applied ? "to patch" : file.state;
    const origins = new Map();
    for (const [soname, origin, from] of file.needs) {
      if (from) origins.set(from, [...(origins.get(from) || [origin]), soname]);
    }
    const line = make("tr", {},
      make("td", { class: "file" }, button),
      make("td", { class: "dist" }, file.dist),
      make("td", {}, make("span", { class: `pill ${file.state}`, title: file.why }, word)),
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
  byId("focus").addEventListener("click", () => { focus = null; files(); });
  byId("more").addEventListener("click", () => { whole = true; files(); });
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      down = sort === button.dataset.sort ? !down : false;
      sort = button.dataset.sort;
      files();
    });
  }
  window.addEventListener("resize", () => { graph(); files(); });
  if (data.trees.length > 1) {
    byId("chooser").hidden = false;
    byId("tree").append(...data.trees.map((entry, number) => make("option", { value: number }, entry.root)));
    byId("tree").addEventListener("change", (event) => open(Number(event.target.value)));
  }
  open(0);
})();
