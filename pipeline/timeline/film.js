"use strict";
// The page of a film: draws the curves, and keeps film, curves and list of segments at one time.
(() => {
  const byId = (id) => document.getElementById(id);
  const { length, thresholds, range, segments, predicted } = JSON.parse(byId("data").textContent);
  const [player, scroller, inner, list] = ["player", "scroller", "inner", "list"].map(byId);
  const rows = [...document.querySelectorAll(".row")];
  const labels = [...document.querySelectorAll(".name")];
  const isSentiment = range[0] < 0;
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const PX_PER_S = 80; // at most
  const share = (time) => `${(100 * time) / length}%`;
  let at = 0, zoom = 1, only = null, active = [];

  // The latest end of the segments up to each one: behind it there is none that is still open.
  const reach = [];
  segments.forEach(([, end], n) => reach.push(Math.max(end, n ? reach[n - 1] : 0)));

  function clock(time, digits = 1) {
    const unit = 10 ** digits, whole = Math.round(time * unit);
    const [h, m, s] = [Math.floor(whole / unit / 3600), Math.floor(whole / unit / 60) % 60, (whole % (60 * unit)) / unit];
    const seconds = s.toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
    return `${h ? `${h}:${String(m).padStart(2, "0")}` : m}:${seconds}`;
  }

  // Number of the last segment that has begun at `time`; -1 before the first.
  function begun(time) {
    let low = 0, high = segments.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (segments[middle][0] <= time) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  // Numbers of the segments at `time`, the last that began first.
  function open(time) {
    const found = [];
    for (let n = begun(time); n >= 0 && reach[n] > time; n--) if (segments[n][1] > time) found.push(n);
    return found;
  }

  function drawLane(lane) {
    const n = Number(lane.dataset.n), y = (score) => 1 - (Math.min(Math.max(score, range[0]), range[1]) - range[0]) / (range[1] - range[0]);
    const base = y(Math.max(0, range[0]));
    const paths = { bed: "", pale: "", full: "", top: "" };
    segments.forEach(([start, end, scores], number) => {
      const height = y(scores[n]).toFixed(4), is = isSentiment ? scores[n] > 0 : predicted[number].includes(n);
      paths.bed += `M${start} 0H${end}V1H${start}Z`;
      paths[is ? "full" : "pale"] += `M${start} ${base}V${height}H${end}V${base}Z`;
      paths.top += `M${start} ${height}H${end}`;
    });
    const make = (tag, attributes) => {
      const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
      Object.entries(attributes).forEach(([name, value]) => part.setAttribute(name, value));
      return part;
    };
    const svg = make("svg", { viewBox: `0 -0.03 ${length} 1.06`, preserveAspectRatio: "none", "aria-hidden": "true" });
    Object.entries(paths).forEach(([name, d]) => svg.append(make("path", { class: name, d })));
    const limit = isSentiment ? 0 : thresholds[n];
    if (limit !== null) svg.append(make("line", { class: "limit", x1: 0, x2: length, y1: y(limit), y2: y(limit) }));
    lane.append(svg);
  }

  // What depends on the width: labels of the axis, and as many faces as there is room for.
  function layOut() {
    const width = inner.clientWidth, step = STEPS.find((each) => (each * width) / length >= 64) ?? 7200;
    const ticks = [];
    for (let time = 0; time < length; time += step) {
      const tick = document.createElement("span");
      tick.style.left = share(time);
      tick.textContent = clock(time, 0);
      ticks.push(tick);
    }
    byId("axis").replaceChildren(...ticks);
    const faces = [];
    let right = 0;
    segments.forEach(([start, end], n) => {
      const source = rows[n].querySelector("img"), left = Math.min(Math.max(((start + end) / 2 / length) * width - 20, 0), width - 40);
      if (!source || left < right) return;
      const face = new Image();
      face.src = source.src;
      face.alt = "";
      face.style.left = `${left}px`;
      faces.push(face);
      right = left + 43;
    });
    byId("faces").replaceChildren(...faces);
    byId("out").disabled = byId("fit").disabled = zoom === 1;
    byId("in").disabled = zoom >= largest();
  }

  const largest = () => Math.max(1, (PX_PER_S * length) / scroller.clientWidth);

  function zoomTo(wanted) {
    zoom = Math.min(Math.max(wanted, 1), largest());
    inner.style.width = `${100 * zoom}%`;
    layOut();
    scroller.scrollLeft = (at / length) * inner.clientWidth - scroller.clientWidth / 2;
  }

  function place(part, n) {
    part.hidden = n === undefined;
    if (part.hidden) return;
    part.style.left = share(segments[n][0]);
    part.style.width = `max(2px, ${share(segments[n][1] - segments[n][0])})`;
  }

  function show(time) {
    at = time;
    byId("clock").textContent = `${clock(at)} / ${clock(length)}`;
    byId("head").style.left = share(at);
    scroller.setAttribute("aria-valuenow", at.toFixed(1));
    scroller.setAttribute("aria-valuetext", clock(at));
    const now = open(at);
    now.forEach((n) => markWord(rows[n]));
    if (now.length && now.join() === active.join()) return;
    active.forEach((n) => { rows[n].classList.remove("now"); rows[n].removeAttribute("aria-current"); rows[n].querySelector(".at")?.classList.remove("at"); });
    now.forEach((n) => rows[n].classList.add("now"));
    if (now.length) rows[now[0]].setAttribute("aria-current", "true");
    place(byId("mark"), now[0]);
    labels.forEach((label, n) => {
      label.classList.toggle("yes", now.length > 0 && predicted[now[0]].includes(n));
      label.querySelector("output").textContent = now.length ? segments[now[0]][2][n].toFixed(2) : "";
    });
    if (now.length) focusable(now[0]);
    active = now;
  }

  // The word that is said, where the times of words are known.
  function markWord(row) {
    const said = [...row.querySelectorAll("[data-at]")].filter((word) => Number(word.dataset.at) <= at).at(-1);
    row.querySelectorAll(".at").forEach((word) => { if (word !== said) word.classList.remove("at"); });
    said?.classList.add("at");
  }

  function follow() {
    const x = (at / length) * inner.clientWidth - scroller.scrollLeft;
    if (x < 0 || x > scroller.clientWidth) scroller.scrollLeft += x - scroller.clientWidth / 5;
    const row = active.length && byId("follow").checked && rows[active[0]];
    if (!row) return;
    const top = row.offsetTop - list.scrollTop;
    if (top < 0 || top + row.offsetHeight > list.clientHeight) list.scrollTop = row.offsetTop - list.clientHeight / 4;
  }

  function seek(time) {
    const wanted = Math.min(Math.max(time, 0), length);
    if (player) player.currentTime = wanted;
    show(wanted);
    follow();
  }

  // One row can be reached with the tab key; the arrows go from there.
  function focusable(n) {
    rows.forEach((row) => { if (row.tabIndex === 0) row.tabIndex = -1; });
    rows[n].tabIndex = 0;
  }

  function filter(n) {
    only = only === n ? null : n;
    labels.forEach((label, m) => label.setAttribute("aria-pressed", String(m === only)));
    rows.forEach((row, m) => { row.parentElement.hidden = only !== null && !predicted[m].includes(only); });
    document.querySelectorAll(".gap").forEach((gap) => { gap.hidden = only !== null; });
    const count = only === null ? segments.length : predicted.filter((each) => each.includes(only)).length;
    byId("count").textContent = only === null ? "" : `${count} of ${segments.length}: ${labels[only].querySelector("b").textContent}`;
  }

  const timeOf = (event) => ((event.clientX - inner.getBoundingClientRect().left) / inner.clientWidth) * length;
  scroller.addEventListener("click", (event) => seek(timeOf(event)));
  scroller.addEventListener("pointermove", (event) => {
    const time = timeOf(event), n = open(time)[0], tip = byId("tip");
    place(byId("over"), n);
    const row = n === undefined ? null : rows[n];
    const parts = row ? [...row.querySelectorAll(".chip, .words")].map((part) => part.textContent) : [];
    tip.textContent = [clock(time), ...parts].join("  ");
    tip.hidden = false;
    tip.style.left = `${Math.min(event.pageX + 12, document.documentElement.clientWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${scroller.getBoundingClientRect().bottom + window.scrollY + 4}px`;
  });
  scroller.addEventListener("pointerleave", () => { byId("tip").hidden = byId("over").hidden = true; });
  scroller.addEventListener("keydown", (event) => {
    const next = segments.find(([start]) => start > at + 0.01), before = segments.findLast(([start]) => start < at - 0.5);
    const keys = {
      ArrowLeft: () => seek(at - 1), ArrowRight: () => seek(at + 1), Home: () => seek(0), End: () => seek(length),
      PageDown: () => next && seek(next[0]), PageUp: () => seek(before ? before[0] : 0),
      "+": () => zoomTo(2 * zoom), "-": () => zoomTo(zoom / 2),
      " ": () => player && (player.paused ? player.play() : player.pause()),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  list.addEventListener("click", (event) => {
    const n = rows.indexOf(event.target.closest(".row"));
    if (n >= 0) seek(segments[n][0]);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    let n = rows.indexOf(document.activeElement);
    if (!step || n < 0) return;
    event.preventDefault();
    do n += step; while (rows[n]?.parentElement.hidden);
    if (!rows[n]) return;
    focusable(n);
    rows[n].focus();
  });
  ["wheel", "touchmove"].forEach((name) => list.addEventListener(name, () => {
    if (player && !player.paused) byId("follow").checked = false;
  }, { passive: true }));
  byId("follow").addEventListener("change", follow);
  byId("in").addEventListener("click", () => zoomTo(2 * zoom));
  byId("out").addEventListener("click", () => zoomTo(zoom / 2));
  byId("fit").addEventListener("click", () => zoomTo(1));
  labels.forEach((label, n) => { if (label.tagName === "BUTTON") label.addEventListener("click", () => filter(n)); });

  if (player) {
    const update = () => { show(Math.min(player.currentTime, length)); follow(); };
    const run = () => { update(); if (!player.paused) requestAnimationFrame(run); };
    player.addEventListener("play", run);
    ["timeupdate", "seeked"].forEach((name) => player.addEventListener(name, update));
    player.addEventListener("error", () => { byId("unplayable").hidden = false; });
    if (player.error) byId("unplayable").hidden = false;
  }

  scroller.setAttribute("aria-valuemax", length.toFixed(1));
  document.querySelectorAll(".lane").forEach(drawLane);
  new ResizeObserver(() => zoomTo(zoom)).observe(scroller);
  layOut();
  if (rows.length) focusable(0);
  show(0);
})();
