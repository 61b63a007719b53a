"use strict";
// Fills the page from the data block: the table, page by page, and the case that is looked at. Text only ever becomes a
// text node or an attribute, so that no name in a report is read as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100;
// Columns of a row, in the order in which the tool writes them.
const [TEST, AT, CLASS, VERDICT, COS, ROW, GAIN, CHAIN, FLOOR, SECONDS, WHY, DETAIL] = Array(12).keys();
const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
const make = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== false));
  return element;
};
const h = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

const digits = (text) => text.replace(/e([+-])0*(\d)/, (_, sign, digit) => "e" + (sign === "-" ? "-" : "") + digit);
const number = {
  // What is not 1 is not to look like it.
  cosine: (x) => (x == null ? "–" : x < 1 && x > 0.99999995 ? "0.9999999" : x.toFixed(7)),
  gain: (x) => (x == null ? "–" : x.toFixed(4)),
  small: (x) => (x == null ? "–" : x === 0 ? "0" : x >= 0.1 && x < 1000 ? String(Number(x.toPrecision(2))) : digits(x.toExponential(1))),
  times: (x) => (x == null ? "–" : x.toFixed(2) + "×"),
  seconds: (x) => (x == null ? "–" : x.toFixed(x < 10 ? 2 : 1)),
  any: (x) => {
    if (x == null) return "none";
    if (Number.isInteger(x) && Math.abs(x) < 1e9) return String(x + 0);
    const size = Math.abs(x);
    return size >= 0.1 && size < 10 ? x.toFixed(7) : digits(x.toExponential(3));
  },
  count: (n) => n.toLocaleString("en"),
};

// ---- the table ------------------------------------------------------------------------------------------------------

const rows = data.rows;
const severalTests = data.tests.length > 1;
const identity = (row) => data.tests[row[TEST]].path + (row[AT] === null ? "" : "[" + row[AT] + "]");
const COLUMNS = [
  { key: "verdict", label: "Verdict", of: VERDICT, text: true },
  { key: "case", label: "Case", of: AT, text: true },
  { key: "cos", label: "Cosine", of: COS, show: number.cosine },
  { key: "row", label: "Worst row", of: ROW, show: number.cosine },
  { key: "gain", label: "Gain", of: GAIN, show: number.gain },
  { key: "chain", label: "Chain L2", of: CHAIN, show: number.small },
  { key: "floor", label: "/ floor", of: FLOOR, show: number.times },
  { key: "seconds", label: "s", of: SECONDS, show: number.seconds },
];
const RANK = { bad: 0, warn: 1, known: 2, good: 3, skip: 4 };
const state = { words: [], test: "", outcome: "", verdicts: new Set(), sort: null, down: false, page: 0, at: 0, open: -1 };
let shown = [];
let texts = null;

const haystack = (i) => {
  texts ??= rows.map((row) => `${identity(row)} ${row[VERDICT]} ${row[WHY]}`.toLowerCase());
  return texts[i];
};

function select() {
  const { words, test, outcome, verdicts, sort, down } = state;
  shown = [];
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    if (test !== "" && row[TEST] !== Number(test)) continue;
    if (outcome === "failed" && RANK[row[CLASS]] > 1) continue;
    if (outcome === "passed" && row[CLASS] !== "good" && row[CLASS] !== "known") continue;
    if (verdicts.size > 0 && !verdicts.has(row[VERDICT])) continue;
    if (words.length > 0 && !words.every(([not, word]) => haystack(i).includes(word) !== not)) continue;
    shown.push(i);
  }
  const sign = down ? -1 : 1;
  if (sort === null) shown.sort((a, b) => RANK[rows[a][CLASS]] - RANK[rows[b][CLASS]] || a - b);
  else if (sort.text) {
    const text = sort.of === VERDICT ? (row) => RANK[row[CLASS]] + row[VERDICT] : identity;
    const keys = new Map(shown.map((i) => [i, text(rows[i])]));
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    shown.sort((a, b) => sign * compare(keys.get(a), keys.get(b)) || a - b);
  } else {
    // What has no number comes last, whichever way.
    shown.sort((a, b) => {
      const [x, y] = [rows[a][sort.of], rows[b][sort.of]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
  }
  state.page = 0;
  state.at = 0;
  draw();
}

const badge = (kind, text) => h("span", { class: "badge " + kind }, text);

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  const from = state.page * PAGE;
  const part = shown.slice(from, from + PAGE);
  byId("rows").replaceChildren(...part.map((i, n) => line(i, n)));
  for (const column of COLUMNS) {
    const sorted = state.sort === column ? (state.down ? "descending" : "ascending") : null;
    const cell = byId("sort-" + column.key);
    if (sorted) cell.setAttribute("aria-sort", sorted);
    else cell.removeAttribute("aria-sort");
  }
  byId("table").hidden = shown.length === 0;
  byId("empty").hidden = shown.length > 0;
  byId("pages").hidden = pages < 2;
  byId("page").textContent = `${number.count(from + 1)}–${number.count(from + part.length)} of ${number.count(shown.length)}`;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === pages - 1;
  const all = shown.length === rows.length;
  byId("shown").textContent = all ? `${number.count(rows.length)} cases` : `${number.count(shown.length)} of ${number.count(rows.length)} cases`;
}

function line(i, n) {
  const row = rows[i];
  const parts = coordinates(row);
  const alone = parts.length === 0;
  const link = h(
    "a",
    { href: "#case=" + encodeURIComponent(identity(row)), tabindex: n === state.at ? 0 : -1 },
    h("span", { class: "at" }, alone ? data.tests[row[TEST]].path : parts),
    h("span", { class: "of" }, severalTests && !alone && data.tests[row[TEST]].path, row[WHY] !== "" && [severalTests && !alone && " · ", h("span", { class: "why" }, row[WHY])]),
  );
  const cells = COLUMNS.slice(2).map((c) => h("td", { class: "num c-" + c.key }, c.show(row[c.of])));
  return h(
    "tr",
    { class: i === state.open ? "picked" : "", "data-case": i },
    h("td", { class: "c-verdict" }, badge(row[CLASS], row[VERDICT])),
    h("td", { class: "c-case" }, link),
    cells,
  );
}

const spaced = (text) => text.replaceAll(",", ", ");

// What all cases have in common is not told in each row.
const common = new Set(rows[0]?.[AT]?.split(",") ?? []);
for (const row of rows) {
  if (common.size === 0) break;
  const own = new Set(row[AT]?.split(",") ?? []);
  for (const part of common) if (!own.has(part)) common.delete(part);
}

function coordinates(row) {
  const parts = (row[AT] ?? "").split(",").filter((part) => part !== "" && (rows.length === 1 || !common.has(part)));
  return parts.map((part, n) => {
    const cut = part.indexOf("=") + 1;
    return [n > 0 && " ", h("span", { class: "part" }, h("span", { class: "dim" }, part.slice(0, cut)), part.slice(cut))];
  });
}

const links = () => byId("rows").querySelectorAll("a");

// Moves the one link of the table that Tab reaches.
function move(to) {
  const all = links();
  if (all.length === 0) return;
  all[state.at]?.setAttribute("tabindex", -1);
  state.at = Math.min(Math.max(to, 0), all.length - 1);
  all[state.at].setAttribute("tabindex", 0);
  all[state.at].focus();
}

function turn(by, at) {
  const page = state.page + by;
  if (page < 0 || page * PAGE >= shown.length) return;
  state.page = page;
  state.at = 0;
  draw();
  if (at === undefined) byId("table").scrollIntoView({ block: "nearest" });
  else move(at);
}

// ---- one case -------------------------------------------------------------------------------------------------------

const detail = byId("detail");

function open(i, focus) {
  state.open = i;
  for (const tr of byId("rows").children) tr.classList.toggle("picked", Number(tr.dataset.case) === i);
  const here = shown.indexOf(i);
  if (here >= state.page * PAGE && here < (state.page + 1) * PAGE) {
    links()[state.at]?.setAttribute("tabindex", -1);
    state.at = here - state.page * PAGE;
    links()[state.at]?.setAttribute("tabindex", 0);
  }
  detail.replaceChildren(...describe(rows[i]));
  detail.hidden = false;
  detail.scrollTop = 0;
  byId("split").classList.add("open");
  document.body.classList.add("covered");
  if (focus) detail.focus();
}

function close() {
  if (state.open < 0) return;
  state.open = -1;
  detail.hidden = true;
  byId("split").classList.remove("open");
  document.body.classList.remove("covered");
  for (const tr of byId("rows").children) tr.classList.remove("picked");
  history.replaceState(null, "", location.pathname + location.search);
  links()[state.at]?.focus();
}

function fromAddress(focus) {
  const wanted = location.hash.match(/^#case=(.*)$/)?.[1];
  if (wanted === undefined) return;
  let id = "";
  try {
    id = decodeURIComponent(wanted);
  } catch {
    return;
  }
  const i = rows.findIndex((row) => identity(row) === id);
  if (i >= 0) open(i, focus);
}

function describe(row) {
  const test = data.tests[row[TEST]];
  const d = row[DETAIL];
  const head = h(
    "div",
    { class: "head" },
    h("div", {}, badge(row[CLASS], row[VERDICT]), h("h2", {}, test.path + (row[AT] === null ? "" : "[" + spaced(row[AT]) + "]"))),
    h("button", { type: "button", onclick: close, title: "Esc" }, "Close"),
  );
  const place = h("p", { class: "dim mono wrap" }, `${test.file}:${test.line}`);
  const section = (title, ...content) => [h("h3", {}, title), ...content];
  if (d === null) {
    return [head, place, h("p", {}, "This report is too large to hold the details of every case. The JSON report and the records have them; the command runs the case again."), ...section("Run it again", command(row))];
  }
  const parts = [head, place];
  if (d.known) parts.push(h("p", { class: "reason" }, h("b", {}, "Known failure: "), d.known));
  if (d.reason) parts.push(h("p", { class: "reason" }, d.reason));
  if (d.causes?.length) parts.push(...section("Cause", causes(d.causes)));
  if (d.findings?.length) parts.push(...section("What the emulator saw", h("ul", {}, d.findings.map((text) => h("li", { class: "wrap" }, text)))));
  if (d.origins?.length) parts.push(...section("Where elements come from", h("ul", {}, d.origins.map((text) => h("li", { class: "wrap" }, text)))));
  if (d.printed?.length) parts.push(...section("Printed by kernels", h("p", { class: "reason" }, d.printed.join("\n"))));
  parts.push(...section("Run it again", command(row)));
  if (d.hops?.length) parts.push(...section("Hop by hop", hops(d)));
  parts.push(...pictures(d));
  const failed = (d.checks ?? []).filter((check) => !check[5]);
  if (failed.length) parts.push(...section("Failed checks", checks(failed, true)));
  if (d.checks?.length) {
    parts.push(h("details", {}, h("summary", {}, `All ${d.checks.length} checks`), checks(d.checks)));
  }
  if (d.power?.length) {
    const seen = d.power.filter((p) => p[2] === "seen").length;
    const title = `Would a fault have been seen? ${seen} of ${d.power.length} seeded ones`;
    parts.push(h("details", {}, h("summary", {}, title), power(d.power)));
  }
  parts.push(...section("Case", facts(row, d)));
  return parts;
}

function causes(list) {
  const item = ([name, text, cos, sure]) =>
    h(
      "li",
      { class: sure ? "sure" : "" },
      sure ? "" : "perhaps ",
      h("b", {}, name),
      ": " + text,
      cos !== null && h("span", { class: "dim" }, ` (cosine ${number.cosine(cos)} with it mended)`),
    );
  return h("ul", { class: "causes" }, list.map(item));
}

// As a POSIX shell reads it back.
const quoted = (word) => (/^[A-Za-z0-9\-_./:=+,@%]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'");

function command(row) {
  const test = data.tests[row[TEST]];
  const words = [...data.program, "-p", test.package, "--arch", test.arch, ...data.flags, identity(row)];
  const text = words.map(quoted).join(" ");
  const copy = h("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(copy.previousSibling);
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return h("div", { class: "command" }, h("pre", {}, text), copy);
}

const table = (heads, lines) =>
  h(
    "div",
    { class: "scroll" },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map(([text, right]) => h("th", { class: right ? "right" : "", scope: "col" }, text)))), h("tbody", {}, lines)),
  );
const cell = (text) => h("td", { class: "wrap" }, text);
const num = (text) => h("td", { class: "num" }, text);

const AGAINST = { quantizer: "against the framework's quantiser", given_bytes: "on the bytes it was given", primary: "against the primary" };

function hops(d) {
  const first = d.hops.findIndex((hop) => hop.failed?.length);
  const scales = d.hops.some((hop) => hop.scale_cos != null);
  const heads = [["Buffer"], ["Cosine", true], ["1 − cosine, 10⁻⁹ to 1"], ...(scales ? [["Scales", true]] : []), ["Gain", true], ["Relative L2", true]];
  const lines = d.hops.map((hop, i) => {
    const failed = (hop.failed ?? []).join(", ");
    const kind = i === first ? "broke" : "";
    return [
      h(
        "tr",
        { class: "hop " + kind },
        h("td", { class: "mono" }, hop.name),
        num(number.cosine(hop.cos)),
        h("td", {}, nines(hop.cos, d.threshold, failed !== "")),
        scales && num(number.cosine(hop.scale_cos)),
        num(number.gain(hop.gain)),
        num(number.small(hop.rel_l2)),
      ),
      h(
        "tr",
        { class: "by " + kind },
        h(
          "td",
          { colspan: heads.length, class: "wrap" },
          failed !== "" && [h("b", {}, (i === first ? "broke first: " : "failed: ") + failed), h("br", {})],
          h("span", { class: "dim" }, [hop.kernel && "by " + hop.kernel, AGAINST[hop.against] ?? hop.against].filter(Boolean).join(", ")),
        ),
      ),
    ];
  });
  return table(heads, lines);
}

// The distance of a cosine from 1 as a bar on a logarithmic scale, with the threshold.
function nines(cos, threshold, bad) {
  const x = (distance) => 150 * Math.min(Math.max((Math.log10(distance) + 9) / 9, 0), 1);
  const length = cos === null || cos === undefined ? 150 : x(Math.max(1 - cos, 1e-12));
  const label = cos == null ? "no cosine" : `1 − cosine is ${number.small(1 - cos)}, at most ${number.small(1 - threshold)} is allowed`;
  const bound = x(Math.max(1 - threshold, 1e-12));
  return s(
    "svg",
    { class: "nines", viewBox: "0 0 150 20", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("title", {}, label),
    s("line", { class: "axis", x1: 0, x2: 150, y1: 17.5, y2: 17.5 }),
    s("rect", { class: "fill" + (bad ? " bad" : ""), x: 0, y: 5, width: Math.max(length, 2), height: 9 }),
    s("line", { class: "bound", x1: bound, x2: bound, y1: 1, y2: 19 }),
  );
}

// Where all of them fail, the title says so.
function checks(list, failed) {
  const lines = list.map(([check, hop, value, bound, margin, ok, text]) =>
    h("tr", {}, !failed && h("td", {}, badge(ok ? "good" : "bad", ok ? "holds" : "fails")), h("td", { class: "mono" }, check), h("td", { class: "mono" }, hop || "chain"), num(number.any(value)), num(number.any(bound)), num(number.any(margin)), cell(text)),
  );
  return table([...(failed ? [] : [["Outcome"]]), ["Check"], ["Buffer"], ["Value", true], ["Bound", true], ["Margin", true], ["Detail"]], lines);
}

function power(list) {
  const kind = { seen: "good", unseen: "warn", not_applicable: "skip" };
  const lines = list.map(([fault, operand, status, failed, cos]) =>
    h("tr", {}, h("td", {}, badge(kind[status], status.replace("_", " "))), h("td", { class: "mono" }, fault), h("td", { class: "mono" }, operand), num(cos === null ? "–" : number.cosine(cos)), cell(failed.join(", "))),
  );
  return table([["Outcome"], ["Fault"], ["Seeded in"], ["Cosine", true], ["Checks that see it"]], lines);
}

function facts(row, d) {
  const test = data.tests[row[TEST]];
  const list = [["Package", test.package], ["Check", d.check], ["Architecture", test.arch]];
  const add = (name, value) => value !== undefined && value !== null && list.push([name, String(value)]);
  add("Format", d.dtype);
  add("Path", d.path);
  for (const [name, value] of Object.entries(d.params ?? {})) add(name, value);
  for (const [name, value] of Object.entries(d.weights ?? {})) add("weight " + name, value);
  const shape = Object.entries(d.shape ?? {}).map(([name, value]) => `${name} ${value}`);
  if (shape.length) add("Shape", shape.join(", "));
  add("Threshold", d.threshold);
  if (d.margin != null) add("Margin", number.any(d.margin));
  if (row[FLOOR] !== null) add("Chain", `${number.small(row[CHAIN])} relative L2, ${number.times(row[FLOOR])} what the formats alone lose`);
  for (const [name, value] of Object.entries(d.metrics ?? {})) add(name, typeof value === "number" ? number.any(value) : value);
  add("Seconds", number.seconds(row[SECONDS]));
  return h("dl", { class: "facts" }, list.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// ---- where the error is ---------------------------------------------------------------------------------------------

const LEVELS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1];
const level = (error) => LEVELS.findLastIndex((bound) => error >= bound) + 1;

function pictures(d) {
  const mapped = (d.hops ?? []).filter((hop) => hop.error_map);
  if (mapped.length === 0) return [];
  const broken = Math.max(mapped.findIndex((hop) => hop.failed?.length), 0);
  const place = h("div", { class: "map" });
  const buttons = mapped.map((hop, i) =>
    h("button", { type: "button", "aria-pressed": String(i === broken), onclick: () => show(i) }, hop.name),
  );
  const show = (i) => {
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === i)));
    place.replaceChildren(...picture(mapped[i].name, mapped[i].error_map));
  };
  show(broken);
  const choice = mapped.length > 1 && h("div", { class: "choice", role: "group", "aria-label": "Buffer" }, buttons);
  return [h("h3", {}, "Where the error is"), choice, place].filter(Boolean);
}

// Pixels that a picture is wide where it is shown: text in it keeps its size.
const room = () => Math.min(Math.max(innerWidth < 1100 ? innerWidth - 44 : innerWidth / 2 - 90, 260), 680);

function picture(name, map) {
  const across = Math.ceil(map.cols / map.tile_cols);
  const down = Math.ceil(map.rows / map.tile_rows);
  const [left, top, bars] = [46, 18, 80];
  const width = (room() - left - bars - 22) / across;
  const height = Math.min(Math.max(width, 150 / down), 26, 420 / down);
  const [right, bottom] = [left + across * width, top + down * height];
  const span = (i, size, n) => (size === 1 ? `${i}` : `${i * size}–${Math.min((i + 1) * size, n) - 1}`);
  const word = (error) => (error === null ? "is no number" : number.small(error));
  const tell = (i) => {
    const [r, c] = [Math.floor(i / across), i % across];
    return `rows ${span(r, map.tile_rows, map.rows)}, columns ${span(c, map.tile_cols, map.cols)}: relative error ${word(map.tiles[i])}`;
  };
  const worst = map.tiles.reduce((best, error, i) => {
    const size = (e) => (e === null ? Infinity : e);
    return size(error) > size(map.tiles[best]) ? i : best;
  }, 0);

  const svg = s("svg", { viewBox: `0 0 ${right + bars + 16} ${bottom + 6}`, role: "img", tabindex: 0 });
  svg.append(
    s("defs", {}, s("pattern", { id: "not-finite", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 5 }))),
  );
  map.tiles.forEach((error, i) => {
    const [x, y] = [left + (i % across) * width, top + Math.floor(i / across) * height];
    const box = { x, y, width: width - 0.4, height: height - 0.4 };
    svg.append(s("rect", { ...box, class: error === null ? "hatched" : "l" + level(error), "data-tile": i }));
  });
  for (let c = 0; c < across; c += Math.ceil((across * 80) / room())) svg.append(s("text", { x: left + c * width, y: top - 6 }, String(c * map.tile_cols)));
  for (let r = 0; r < down; r += Math.ceil(down / 8)) svg.append(s("text", { x: left - 6, y: top + r * height + Math.min(height, 12) - 1, "text-anchor": "end" }, String(r * map.tile_rows)));
  // The worst row of each group, beside the tiles, from 1e-4 to 1.
  const group = ((bottom - top) * map.row_group) / map.rows;
  svg.append(s("text", { x: right + 10, y: top - 6 }, "rows, to 1"), s("line", { class: "axis", x1: right + 10, x2: right + 10, y1: top, y2: bottom }));
  map.row_errors.forEach((error, i) => {
    const length = error === null ? bars : error === 0 ? 0 : bars * Math.min(Math.max((Math.log10(error) + 4) / 4, 0.02), 1);
    const title = `${map.row_group > 1 ? "worst of rows " : "row "}${span(i, map.row_group, map.rows)}: ${word(error)}`;
    const y = top + i * group;
    const tall = Math.max(Math.min(group, bottom - y) - (group > 3 ? 1 : 0), 0.5);
    svg.append(s("rect", { class: error === null ? "hatched" : "fill", x: right + 10, y, width: length, height: tall }, s("title", {}, title)));
  });
  const cursor = s("rect", { class: "cursor", width, height, visibility: "hidden" });
  svg.append(cursor);
  svg.setAttribute("aria-label", `Relative error of ${name}, ${map.rows} by ${map.cols}, in ${down} by ${across} tiles. Worst: ${tell(worst)}. Arrow keys read the tiles.`);

  const readout = h("p", { class: "readout", "aria-live": "polite" });
  let at = worst;
  const point = (i, visible) => {
    at = i;
    cursor.setAttribute("x", left + (i % across) * width);
    cursor.setAttribute("y", top + Math.floor(i / across) * height);
    cursor.setAttribute("visibility", visible ? "visible" : "hidden");
    readout.textContent = (visible ? "" : "worst: ") + tell(i);
  };
  point(worst, false);
  svg.addEventListener("mouseover", (event) => event.target.dataset.tile !== undefined && point(Number(event.target.dataset.tile), true));
  svg.addEventListener("mouseleave", () => point(worst, false));
  svg.addEventListener("focus", () => point(at, true));
  svg.addEventListener("blur", () => point(worst, false));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const crosses = Math.abs(step) === 1 && Math.floor((at + step) / across) !== Math.floor(at / across);
    if (!crosses && at + step >= 0 && at + step < map.tiles.length) point(at + step, true);
  });
  const shape = `${map.rows} × ${map.cols}; a tile is ${map.tile_rows} × ${map.tile_cols}`;
  return [svg, legend(), readout, h("p", { class: "dim" }, `${shape}. Relative L2 error against float64, before rounding to the buffer's format.`), histogram(map)];
}

function legend() {
  const labels = ["0", "1e-4", "3e-4", "1e-3", "3e-3", "0.01", "0.03", "0.1", "0.3", "1"];
  const swatch = (kind, label) => h("span", {}, h("span", { class: "swatch " + kind }), label);
  const none = swatch("none", "NaN, Inf, ÷0");
  return h("p", { class: "legend", "aria-label": "Scale: relative errors from these values on" }, labels.map((label, i) => swatch("l" + i, label)), none);
}

function histogram(map) {
  const counts = [...map.histogram, map.not_finite];
  const most = Math.max(...counts);
  const [width, height] = [(room() - 8) / counts.length, 90];
  const scale = (n) => (n === 0 ? 0 : (height * (Math.log10(n) + 0.3)) / (Math.log10(most) + 0.3));
  const power = (i) => digits((10 ** (i / 2 - 8)).toExponential(0));
  const name = (i) =>
    i === 0 ? "equal" : i === counts.length - 1 ? "unexpected NaN or Inf" : i === 1 ? `below ${power(1)}` : i === counts.length - 2 ? `${power(i - 1)} and more` : `${power(i - 1)} to ${power(i)}`;
  const bars = counts.map((n, i) =>
    s("g", {}, s("title", {}, `${name(i)}: ${number.count(n)} elements`), s("rect", { x: i * width, y: 0, width, height, fill: "transparent" }), s("rect", { class: i === counts.length - 1 ? "hatched" : "fill", x: i * width + 1, y: height - scale(n), width: width - 2, height: scale(n) })),
  );
  const marks = (width > 18 ? [3, 5, 7, 9, 11, 13, 15, 17, 19] : [5, 9, 13, 17]).map((i) => s("text", { x: i * width, y: height + 14, "text-anchor": "middle" }, power(i - 1)));
  const ends = [s("text", { x: 0, y: height + 14 }, "0"), s("text", { x: counts.length * width, y: height + 14, "text-anchor": "end" }, "NaN")];
  const peak = counts.indexOf(most);
  const label = `Elements by error: most, ${number.count(most)}, are ${name(peak)}; ${number.count(counts[0])} are equal; ${number.count(map.not_finite)} are NaN or Inf without reason`;
  return h(
    "div",
    {},
    h("h3", {}, "Elements by error"),
    s("svg", { viewBox: `-4 -4 ${counts.length * width + 8} ${height + 22}`, role: "img", "aria-label": label }, bars, s("line", { class: "axis", x1: 0, x2: counts.length * width, y1: height, y2: height }), marks, ends),
    h("p", { class: "dim" }, "Error of an element in units of the reference's root mean square; the count is logarithmic."),
  );
}

// ---- what the reader does -------------------------------------------------------------------------------------------

byId("heads").append(
  ...COLUMNS.map((column) =>
    h(
      "th",
      { id: "sort-" + column.key, scope: "col", class: (column.text ? "" : "right ") + "c-" + column.key },
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            // Ascending, descending, as it was.
            if (state.sort !== column) [state.sort, state.down] = [column, false];
            else if (!state.down) state.down = true;
            else [state.sort, state.down] = [null, false];
            select();
          },
        },
        column.label,
      ),
    ),
  ),
);
data.tests.forEach((test, i) => byId("test").append(h("option", { value: i }, data.archs > 1 ? `${test.path} (${test.arch})` : test.path)));
byId("test").closest("label").hidden = !severalTests;
byId("test").addEventListener("change", (event) => ((state.test = event.target.value), select()));
byId("outcome").addEventListener("change", (event) => ((state.outcome = event.target.value), select()));
let pending = 0;
byId("find").addEventListener("input", (event) => {
  clearTimeout(pending);
  pending = setTimeout(() => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-");
    state.words = words.map((word) => (word.startsWith("-") ? [true, word.slice(1)] : [false, word]));
    select();
  }, 80);
});
for (const button of document.querySelectorAll(".counts button")) {
  button.addEventListener("click", () => {
    const verdict = button.dataset.verdict;
    if (!state.verdicts.delete(verdict)) state.verdicts.add(verdict);
    button.setAttribute("aria-pressed", String(state.verdicts.has(verdict)));
    select();
  });
}
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("rows").addEventListener("click", (event) => {
  const tr = event.target.closest("tr");
  if (!tr || event.ctrlKey || event.metaKey || event.shiftKey || String(getSelection()) !== "") return;
  event.preventDefault();
  const i = Number(tr.dataset.case);
  history.replaceState(null, "", "#case=" + encodeURIComponent(identity(rows[i])));
  open(i, event.detail === 0 || innerWidth < 1100);
});
byId("rows").addEventListener("keydown", (event) => {
  const last = links().length - 1;
  const act = {
    ArrowDown: () => (state.at === last ? turn(1, 0) : move(state.at + 1)),
    ArrowUp: () => (state.at === 0 ? turn(-1, PAGE) : move(state.at - 1)),
    Home: () => move(0),
    End: () => move(last),
    PageDown: () => turn(1, 0),
    PageUp: () => turn(-1, 0),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
  // An open case follows.
  const tr = document.activeElement?.closest("tr");
  if (state.open >= 0 && tr) open(Number(tr.dataset.case), false);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape") {
    if (typing && event.target.value !== "" && event.target.id === "find") return;
    close();
  } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (state.open >= 0 && innerWidth < 1100) close();
    byId("find").focus();
    byId("find").select();
  } else if ((event.key === "ArrowDown" || event.key === "Enter") && event.target.id === "find") {
    event.preventDefault();
    move(0);
  }
});
addEventListener("hashchange", () => fromAddress(true));

document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
document.querySelector("form").hidden = false;
select();
fromAddress(false);
