"use strict";
// Shows what was computed beforehand. Values are multiples of data.quantum (units of reward); attention and beliefs are
// in ten-thousandths. The arrays' axes are named in theory/circuits/attention_page.py, which writes them.

const data = JSON.parse(document.getElementById("data").textContent);
const picked = { context: 0, decision: 0, layer: data.head[0], head: data.head[1], action: 0, step: 0 };
const ACTION_COLORS = ["#0072B2", "#B36200", "#00785A", "#C0392B", "#7D4FA8", "#666666"];
const digits = Math.max(0, Math.min(3, Math.ceil(-Math.log10(data.quantum))));

const signalOf = data.signal === "observation" ? "observation after" : "reward of"; // a step

const byId = (id) => document.getElementById(id);
const value = (whole) => (whole * data.quantum).toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
const percent = (share) => (share / 100).toFixed(share < 1000 ? 1 : 0) + " %";
const color = (action) => ACTION_COLORS[action % ACTION_COLORS.length];
const largest = (list) => list.indexOf(Math.max(...list));
const times = (n) => [...Array(n).keys()];
const shade = (share) => `rgb(var(--plus) / ${Math.sqrt(share / 10000).toFixed(3)})`; // 1 % is a tenth as dark as 100 %
const signed = (part) => `rgb(var(${part < 0 ? "--minus" : "--plus"}) / ${Math.min(1, Math.abs(part)).toFixed(3)})`;

const context = () => data.contexts[picked.context];
const decision = () => context().decisions[picked.decision];
const attention = () => decision().attention[picked.layer][picked.head];

/** An element with attributes and children; names of SVG elements begin with "svg:". */
function make(name, attributes = {}, ...children) {
  const isSvg = name.startsWith("svg");
  const element = isSvg
    ? document.createElementNS("http://www.w3.org/2000/svg", name.replace("svg:", ""))
    : document.createElement(name);
  for (const [key, content] of Object.entries(attributes)) element.setAttribute(key, content);
  element.append(...children);
  return element;
}

function fill(id, ...children) {
  byId(id).replaceChildren(...children);
}

/** One entry of a key: a colour and what it stands for. */
const swatch = (ink, name) => make("b", {}, make("span", { style: `background:${ink}` }), name);

function text(x, y, content, attributes = {}) {
  return make("svg:text", { x, y, ...attributes }, content);
}

/** Attention to every step of the context, over the positions that hold it. */
function attentionToSteps() {
  const steps = Array(data.episodes * data.steps).fill(0);
  attention().forEach((share, i) => {
    if (context().pieces[i] >= 0) steps[context().pieces[i]] += share;
  });
  return steps;
}

/** How many steps come before the decision, those that did not take place included. */
const before = () => (data.episodes - 1) * data.steps + data.decisions[picked.decision];

// ---- the controls

function options(id, names) {
  fill(id, ...names.map((name, i) => make("option", { value: i }, name)));
}

function setUp() {
  const groups = {};
  data.contexts.forEach((each, i) => {
    groups[each.kind] ??= make("optgroup", { label: each.kind });
    groups[each.kind].append(make("option", { value: i }, `${each.kind} ${groups[each.kind].children.length + 1}, error ${each.error}`));
  });
  fill("context", ...Object.values(groups));
  options("decision", data.decisions.map((step) => `${step}`));
  options("layer", times(data.layers).map(String));
  options("head", times(data.heads).map(String));
  options("action", times(data.actions).map(String));
  for (const name of ["context", "decision", "layer", "head", "action"]) {
    byId(name).value = picked[name];
    byId(name).addEventListener("change", (event) => {
      picked[name] = Number(event.target.value);
      show(name === "context" || name === "decision");
    });
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("strip").addEventListener("keydown", moveInStrip);
  fill("attention-key", ...[0, 100, 1000, 10000].map((share) => swatch(shade(share), `${share / 100} %`)));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) show(false);
    width = window.innerWidth;
  });
}

// ---- where the decision attends

function buildStrip() {
  const c = context(), columns = `1.9rem repeat(${data.steps}, minmax(1.25rem, 3rem))`;
  fill("strip", ...times(data.episodes).map((e) => {
    const isLast = e === data.episodes - 1;
    const row = make("div", { class: "episode", style: `grid-template-columns:${columns}` }, make("span", {}, isLast ? "now" : `${e}`));
    for (const t of times(data.steps)) {
      const i = e * data.steps + t;
      if (isLast && t === data.decisions[picked.decision]) {
        row.append(make("span", { class: "step query" }, `${decision().state}`, make("br"), "?"));
      }
      if (i >= before() || !c.valid[i]) continue;
      const action = make("i", { style: `background:${color(c.action[i])}` }, `${c.action[i]}`);
      const box = make("button", { type: "button", class: "step", "data-step": i, tabindex: -1 }, `${c.state[i]}`, action, rewardText(c.reward[i]));
      box.classList.toggle("same", c.state[i] === decision().state);
      box.addEventListener("click", () => pickStep(i));
      row.append(box);
    }
    return row;
  }));
  picked.step = largest(strengths());
}

const rewardText = (reward) => (reward === 1 ? "●" : reward === 0 ? "○" : `${Number(reward.toPrecision(2))}`);

/** How much each step moves the planner's Q, or the logits where there is no planner. */
function strengths() {
  return (decision().exact ?? decision().moved).map((changes) => Math.max(...changes.map(Math.abs)));
}

function pickStep(step) {
  picked.step = step;
  show(false);
}

function paintStrip() {
  const shares = attentionToSteps(), c = context();
  for (const box of byId("strip").querySelectorAll("button")) {
    const i = Number(box.dataset.step);
    box.style.background = shade(shares[i]);
    box.classList.toggle("strong", shares[i] > 3600);
    box.setAttribute("aria-pressed", i === picked.step);
    box.tabIndex = i === picked.step ? 0 : -1;
    box.setAttribute("aria-label", `episode ${Math.floor(i / data.steps)}, step ${i % data.steps}: ` +
      `${data.hidden ? "observation" : "state"} ${c.state[i]}, action ${c.action[i]}, reward ${c.reward[i]}; attention ${percent(shares[i])}`);
    box.title = box.getAttribute("aria-label");
  }
  const total = shares.reduce((sum, share) => sum + share, 0);
  fill("elsewhere", `${percent(total)} of the attention of layer ${picked.layer}, head ${picked.head} falls on steps, the rest on the beginnings of episodes and on the decision itself.`);
}

function moveInStrip(event) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.steps, ArrowDown: data.steps };
  if (!(event.key in moves)) return;
  event.preventDefault();
  for (let i = picked.step + moves[event.key]; i >= 0 && i < before(); i += moves[event.key]) {
    const box = byId("strip").querySelector(`[data-step="${i}"]`);
    if (!box) continue;
    pickStep(i);
    box.focus();
    return;
  }
}

function showTokens() {
  const tokens = context().tokens;
  byId("tokens-section").hidden = !tokens;
  if (!tokens) return;
  fill("tokens", ...attention().map((share, i) => {
    const token = make("span", { style: `background:${shade(share)}`, title: percent(share) }, tokens[i].replace(/\n/g, "⏎\n"));
    token.classList.toggle("strong", share > 3600);
    return token;
  }));
}

// ---- what the actions are worth

function estimates() {
  const d = decision();
  return [
    ["Q*", "--true", d.q],
    ...(d.planner ? [[data.planner, "--planner", d.planner]] : []),
    ["temperature x logits", "--logits", d.logits],
    [`layer ${picked.layer}, head ${picked.head}`, "--head", d.head[picked.layer][picked.head]],
  ];
}

function showValues() {
  const rows = estimates(), shares = attentionToSteps(), c = context();
  const everyHead = decision().head.flat(2), limit = Math.max(1, ...[...rows.flatMap((row) => row[2]), ...everyHead].map(Math.abs));
  const width = byId("values").clientWidth, left = 74, right = 46, line = 15, group = rows.length * line + 14;
  const height = data.actions * group + 34, middle = (left + width - right) / 2, scale = (width - right - left - 90) / 2 / limit;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "values of every action" });
  for (const a of times(data.actions)) {
    const top = a * group + 8;
    const mass = shares.reduce((sum, share, i) => sum + (c.action[i] === a ? share : 0), 0);
    svg.append(
      make("svg:rect", { x: 0, y: top, width: 8, height: rows.length * line, fill: color(a) }),
      text(13, top + 14, `action ${a}`, { "font-weight": 600 }),
      text(13, top + 30, percent(mass)),
      text(13, top + 44, "attention", { "font-size": 10 }));
    rows.forEach(([name, ink, values], k) => {
      const length = values[a] * scale, y = top + k * line, end = middle + length;
      svg.append(
        make("svg:rect", { x: Math.min(middle, end), y: y + 1, width: Math.max(1, Math.abs(length)), height: line - 3, style: `fill:var(${ink})` },
          make("svg:title", {}, `${name}: ${value(values[a])}`)),
        text(end + (length < 0 ? -4 : 4), y + 11, value(values[a]), { "text-anchor": length < 0 ? "end" : "start", "font-size": 11 }));
    });
  }
  const floor = height - 24;
  svg.append(make("svg:line", { x1: middle, x2: middle, y1: 4, y2: floor, stroke: "currentColor" }));
  for (const end of [-limit, 0, limit]) svg.append(text(middle + end * scale, floor + 14, value(end), { "text-anchor": "middle" }));
  svg.append(text(width, floor + 14, "reward", { "text-anchor": "end" }));
  fill("values", svg);
  fill("values-key", ...rows.map(([name, ink]) => swatch(`var(${ink})`, name)));
}

// ---- which heads Q can be read from

function showGrid() {
  const means = data.correlation[picked.decision], halves = data.half[picked.decision];
  const top = make("tr", {}, make("th", {}, "layer"), ...times(data.heads).map((h) => make("th", {}, `head ${h}`)));
  fill("grid", top, ...times(data.layers).map((x) => make("tr", {}, make("th", {}, `${x}`), ...times(data.heads).map((h) => {
    const mean = means[x][h], isClear = Math.abs(mean) > halves[x][h];
    const cell = make("button", { type: "button", "aria-pressed": x === picked.layer && h === picked.head,
      style: isClear ? `background:${signed(mean)}` : "", class: !isClear ? "pale" : Math.abs(mean) > 0.6 ? "strong" : "",
      title: `${mean} ± ${halves[x][h]}`, "aria-label": `layer ${x}, head ${h}: ${mean} ± ${halves[x][h]}` }, mean.toFixed(2).replace("-0.00", "0.00"));
    cell.addEventListener("click", () => pickHead(x, h));
    return make("td", {}, cell);
  }))));
}

function pickHead(layer, head) {
  Object.assign(picked, { layer, head });
  byId("layer").value = layer;
  byId("head").value = head;
  show(false);
  byId("grid").querySelector("[aria-pressed=true]").focus();
}

// ---- what one signal of the context changes

function matrix(title, changes, limit) {
  const c = context(), cell = 16, left = 30, width = Math.max(190, left + data.steps * cell), height = data.episodes * cell + 34;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, style: `max-width:${width * 1.6}px` });
  changes.forEach((each, i) => {
    if (!c.valid[i]) return;
    const e = Math.floor(i / data.steps), t = i % data.steps, change = each[picked.action];
    svg.append(make("svg:rect", { x: left + t * cell, y: e * cell, width: cell - 1, height: cell - 1,
      style: `fill:${signed(change / limit)};stroke:${i === picked.step ? "var(--ink)" : "var(--line)"};stroke-width:${i === picked.step ? 2 : 0.5}` },
      make("svg:title", {}, `episode ${e}, step ${t}: ${value(change)}`)));
  });
  for (const e of times(data.episodes)) {
    if (e % 5 === 0 || data.episodes < 12) svg.append(text(left - 5, e * cell + 12, e === data.episodes - 1 ? "now" : `${e}`, { "text-anchor": "end", "font-size": 9 }));
  }
  for (const t of times(data.steps)) {
    if (t % 5 === 0 || data.steps < 8) svg.append(text(left + t * cell + 7, data.episodes * cell + 10, `${t}`, { "text-anchor": "middle", "font-size": 9 }));
  }
  svg.append(text(left, height - 6, "step (lines: episodes)", { "font-size": 10 }));
  return make("div", {}, make("h3", {}, title), svg);
}

function scatter(limit) {
  const size = 300, left = 58, plot = size - left - 40, at = (v) => left + (v / limit + 1) / 2 * plot, up = (v) => plot + 8 - (v / limit + 1) / 2 * plot;
  const { moved, exact } = decision();
  const svg = make("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "changes of all actions by every step", style: "max-width:26rem" });
  svg.append(make("svg:rect", { x: left, y: 8, width: plot, height: plot, fill: "none", stroke: "var(--line)" }),
    make("svg:line", { x1: at(-limit), y1: up(-limit), x2: at(limit), y2: up(limit), stroke: "var(--soft)" }));
  let xy = 0, xx = 0, yy = 0;
  exact.forEach((each, i) => each.forEach((x, a) => {
    const y = moved[i][a];
    [xy, xx, yy] = [xy + x * y, xx + x * x, yy + y * y];
    if (context().valid[i]) svg.append(make("svg:circle", { cx: at(x), cy: up(y), r: i === picked.step ? 5 : 2.5, fill: color(a), "fill-opacity": 0.6,
      stroke: i === picked.step ? "var(--ink)" : "none" }));
  }));
  for (const v of [-limit, 0, limit]) {
    svg.append(text(at(v), plot + 22, value(v), { "text-anchor": "middle", "font-size": 10 }), text(left - 4, up(v) + 4, value(v), { "text-anchor": "end", "font-size": 10 }));
  }
  svg.append(text(left + plot / 2, plot + 38, "change of the planner's Q, reward", { "text-anchor": "middle", "font-size": 11 }),
    text(0, 0, "change of temperature x logit, reward", { transform: `translate(11 ${plot / 2 + 8}) rotate(-90)`, "text-anchor": "middle", "font-size": 11 }));
  const fit = xx && yy ? `slope ${(xy / xx).toFixed(2)}, R² ${(xy * xy / xx / yy).toFixed(2)}` : "nothing moves";
  return make("div", {}, make("h3", {}, `all actions, by colour: ${fit}`), svg);
}

function showInfluence() {
  const { moved, exact } = decision();
  const limit = Math.max(1, ...[...moved, ...(exact ?? [])].flat().map(Math.abs));
  const model = matrix("the model's logits", moved, limit);
  fill("influence", model, ...(exact ? [matrix(`the exact change: ${data.planner}`, exact, limit), scatter(limit)] : []));
  fill("influence-note", `Each box: what replacing the ${signalOf} that step changes, from -${value(limit)} (orange) to ${value(limit)} (blue) of reward, on one scale` +
    (exact ? "." : "; no exact posterior is known for this family."));
}

// ---- what changes the decision

function showChanges() {
  const d = decision(), removed = data.removed.findIndex(([x, h]) => x === picked.layer && h === picked.head);
  const add = (list, changes) => list.map((v, a) => v + changes[a]);
  const step = picked.step, at = `episode ${Math.floor(step / data.steps)}, step ${step % data.steps}`;
  const rows = [["as it is", d.logits]];
  if (removed >= 0) rows.push([`without layer ${picked.layer}, head ${picked.head}`, d.without[removed]]);
  if (d.moved[step]) rows.push([`${signalOf} ${at} replaced`, add(d.logits, d.moved[step])]);
  if (d.planner) rows.push([data.planner, d.planner]);
  if (d.planner && d.exact[step]) rows.push([`${data.planner}, ${data.signal} replaced`, add(d.planner, d.exact[step])]);
  const head = make("tr", {}, make("th", {}, ""), ...times(data.actions).map((a) => make("th", {}, `action ${a}`)));
  fill("changes", head, ...rows.map(([name, values]) => make("tr", {}, make("td", {}, name), ...values.map((v, a) =>
    make("td", { class: a === largest(values) ? "best" : "" }, value(v))))));
  const rise = data.rises[removed];
  fill("changes-note", rise
    ? `Over all tasks, the regret of the first decision rises by ${rise[0]} [${rise[1]}, ${rise[2]}] of reward without this head.`
    : `The removal of this head was not computed; it was for ${data.removed.map(([x, h]) => `${x}/${h}`).join(", ")} (layer/head).`);
}

function showBeliefs() {
  const beliefs = Object.entries(decision().beliefs);
  byId("beliefs-section").hidden = !beliefs.length;
  if (!beliefs.length) return;
  const width = byId("beliefs").clientWidth, n = beliefs[0][1].length, line = 15, left = 60, group = beliefs.length * line + 8;
  const inks = ["--true", "--logits"], scale = (width - left - 60) / 10000;
  const svg = make("svg", { viewBox: `0 0 ${width} ${n * group + 8}`, role: "img", "aria-label": "beliefs" });
  for (const s of times(n)) {
    svg.append(text(0, s * group + 14, `state ${s}`));
    beliefs.forEach(([name, belief], k) => svg.append(
      make("svg:rect", { x: left, y: s * group + k * line + 2, width: Math.max(1, belief[s] * scale), height: line - 3, style: `fill:var(${inks[k]})` }),
      text(left + belief[s] * scale + 5, s * group + k * line + 13, percent(belief[s]), { "font-size": 11 })));
  }
  fill("beliefs", make("div", { class: "key note" }, ...beliefs.map(([name], k) => swatch(`var(${inks[k]})`, `of a decider ${name}`))), svg);
}

function show(isAnotherDecision) {
  if (isAnotherDecision) buildStrip();
  const d = decision();
  fill("about", (d.happens ? "" : "The episode was over before this step. ") +
    `Decision in ${data.hidden ? "observation" : "state"} ${d.state}: the model takes action ${largest(d.logits)}, the best is ${largest(d.q)}; regret ${value(d.regret)} of reward.`);
  paintStrip();
  showTokens();
  showValues();
  showGrid();
  showInfluence();
  showChanges();
  showBeliefs();
}

setUp();
show(true);
