"use strict";
// The page of an evaluation. Texts of models, judges and data are only ever set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  // Texts whose steps are known are told by them alone.
  for (const texts of data.texts || []) for (const said of Object.values(texts)) said.text ??= said.steps.map((step) => step[2]).join(" ");
  const KEYS = { a: "A", b: "B", tie: "=", error: "!" };

  // ---- Small helpers -----------------------------------------------------------------------------------------------
  /** An element with properties and children; strings become text nodes. */
  function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  function svg(tag, props = {}, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const clock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds + 1e-6)), pad = (n) => String(n).padStart(2, "0");
    const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return h ? `${h}:${pad(m)}:${pad(whole % 60)}` : `${m}:${pad(whole % 60)}`;
  };
  const span = (one) => `${clock(one.start)}–${clock(one.end)}`;
  const words = (text) => (text.trim() ? text.trim().split(/\s+/).length : 0);
  const plural = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
  const fold = (text) => text.normalize("NFKC").toLocaleLowerCase();
  /** Text with what is searched for marked. */
  function marked(text, query) {
    if (!query) return [text];
    const low = text.toLocaleLowerCase(), find = query.toLocaleLowerCase(), out = [];
    if (low.length !== text.length) return [text]; // a few letters change their length; places would be wrong
    let at = 0;
    for (let hit = low.indexOf(find); hit >= 0; hit = low.indexOf(find, at)) {
      out.push(text.slice(at, hit), el("mark", {}, text.slice(hit, hit + find.length)));
      at = hit + find.length;
    }
    out.push(text.slice(at));
    return out;
  }
  const badge = (kind, title) => el("span", { class: `key ${kind}`, title, "aria-label": title }, KEYS[kind]);
  function options(select, values) {
    select.replaceChildren(...values.map(([value, text]) => el("option", { value }, text)));
  }
  function debounce(run, wait) {
    let timer = 0;
    return () => { clearTimeout(timer); timer = setTimeout(run, wait); };
  }

  // ---- Address: everything that can be linked to ------------------------------------------------------------------
  // "#WINDOW" opens a window, "#view=windows&w=WINDOW&winner=a" says more.
  function readHash() {
    const raw = location.hash.slice(1);
    let plain = raw;
    try { plain = decodeURIComponent(raw); } catch { /* not encoded */ }
    if (data.windows && data.windows.some((one) => one.id === plain)) return new Map([["view", "windows"], ["w", plain]]);
    return new Map(new URLSearchParams(raw));
  }
  function writeHash(values, push) {
    const kept = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
    const hash = `#${kept}`;
    if (hash === location.hash) return;
    if (push) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  }

  const views = [...document.querySelectorAll("section.view")];
  function show(name) {
    const known = views.some((view) => view.dataset.view === name) ? name : views[0].dataset.view;
    for (const view of views) view.hidden = view.dataset.view !== known;
    for (const link of document.querySelectorAll(".views a")) {
      if (link.dataset.view === known) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (known === "windows" && explorer) explorer.shown();
    if (known === "items" && items) items.shown();
    return known;
  }

  // ---- Windows ----------------------------------------------------------------------------------------------------
  function makeExplorer() {
    if (!data.windows || !data.pairs.length) return null;
    const form = $("filters"), list = $("list"), search = $("q");
    const state = { pair: 0, w: "", shown: [], rows: new Map(), built: -1 };
    const byId = new Map(data.windows.map((one, index) => [one.id, index]));
    const games = [...new Set(data.windows.map((one) => one.video))];
    const sports = [...new Set(data.windows.map((one) => one.group).filter(Boolean))].sort();
    const titleOf = (video) => data.windows.find((one) => one.video === video).title || video;

    options($("pair"), data.pairs.map((pair, n) => [n, `${nameOf(pair.a)} vs ${nameOf(pair.b)}${data.judges > 1 ? ` · ${pair.judge}` : ""}`]));
    options($("game"), [["", `All games (${games.length})`], ...games.map((video) => [video, titleOf(video)])]);
    options($("sport"), [["", "All sports"], ...sports.map((sport) => [sport, sport])]);
    $("pair").closest("label").hidden = data.pairs.length < 2;
    $("game").closest("label").hidden = games.length < 2;
    $("sport").closest("label").hidden = sports.length < 2;

    function nameOf(index) { return data.contestants[index].name; }
    function pair() { return data.pairs[state.pair]; }
    function textOf(contestant, index) { return (data.texts[contestant] || {})[index] || null; }
    const verdictKind = (verdict) => verdict.winner || "error";

    /** What is searched of a window, folded once for each pair. */
    function prepare() {
      for (const verdict of pair().verdicts) {
        if (verdict.search) continue;
        const one = data.windows[verdict.w];
        const said = [pair().a, pair().b].map((who) => textOf(who, verdict.w)?.text || "");
        verdict.search = fold([one.id, one.title, one.group, one.ref || "", ...said].join("\n"));
      }
    }

    function build() {
      if (state.built === state.pair) return;
      prepare();
      state.rows.clear();
      const fragment = document.createDocumentFragment();
      let game = null, heading = null;
      for (const verdict of pair().verdicts) {
        const one = data.windows[verdict.w];
        if (one.video !== game) {
          game = one.video;
          heading = el("h4", {}, el("span", { title: one.video }, one.title || one.video), el("span", {}, one.group));
          fragment.append(heading);
        }
        const kind = verdictKind(verdict), snippet = textOf(pair().a, verdict.w)?.text || one.ref || "";
        const tags = [verdict.flip && el("span", { class: "tag flip" }, "flip"), verdict.error && el("span", { class: "tag error" }, "error"),
          verdict.empty && el("span", { class: "tag" }, "empty")];
        const row = el("a", { href: link(one.id), "data-w": one.id },
          badge(kind, outcome(verdict)), el("span", { class: "time" }, span(one)), el("span", {}, ...tags.filter(Boolean).flatMap((tag) => [tag, " "])),
          el("span", { class: "snip" }, snippet.slice(0, 140)));
        state.rows.set(verdict, { row, heading });
        fragment.append(row);
      }
      list.replaceChildren(fragment);
      state.built = state.pair;
    }

    function outcome(verdict) {
      if (!verdict.winner) return "no vote";
      return verdict.winner === "tie" ? "tie" : `${nameOf(pair()[verdict.winner])} wins`;
    }
    function values() { return Object.fromEntries(new FormData(form)); }
    function filtered() {
      const on = values(), query = fold(search.value.trim());
      return pair().verdicts.filter((verdict) => {
        const one = data.windows[verdict.w];
        return (!on.game || one.video === on.game) && (!on.sport || one.group === on.sport) &&
          (!on.winner || verdict.winner === on.winner) && (!on.flip || verdict.flip) && (!on.error || verdict.error) &&
          (!on.empty || verdict.empty) && (!query || verdict.search.includes(query));
      });
    }
    function filter() {
      state.shown = filtered();
      const kept = new Set(state.shown), headings = new Set();
      for (const [verdict, { row, heading }] of state.rows) {
        row.hidden = !kept.has(verdict);
        if (!row.hidden) headings.add(heading);
      }
      for (const heading of list.querySelectorAll("h4")) heading.hidden = !headings.has(heading);
      $("empty-list").hidden = state.shown.length > 0;
      summary();
      draw();
      neighbours();
    }
    function summary() {
      const votes = { a: 0, tie: 0, b: 0 };
      for (const verdict of state.shown) for (const vote of verdict.votes) if (vote.choice) votes[vote.choice] += 1;
      const total = votes.a + votes.tie + votes.b, of = pair().verdicts.length;
      const rate = total ? `${((100 * (votes.a + votes.tie / 2)) / total).toFixed(1)}% A` : "no votes";
      $("count").textContent = state.shown.length === of ? plural(of, "window") : `${state.shown.length.toLocaleString("en")} of ${plural(of, "window")}`;
      $("rate").textContent = rate;
      $("bar").replaceChildren(...["a", "tie", "b"].map((kind) => el("i", { class: kind })));
      [...$("bar").children].forEach((bar, n) => { bar.style.width = total ? `${(100 * votes[["a", "tie", "b"][n]]) / total}%` : "0"; });
      $("clear").hidden = !isFiltered();
    }
    function isFiltered() {
      const on = values();
      return Boolean(on.game || on.sport || on.winner || on.flip || on.error || on.empty || search.value.trim());
    }

    // One window
    function current() { return pair().verdicts.find((verdict) => data.windows[verdict.w].id === state.w) || null; }
    function link(id) { return `#${new URLSearchParams({ view: "windows", ...(state.pair ? { pair: state.pair } : {}), w: id })}`; }
    function open(id, push) {
      state.w = id;
      const verdict = current();
      for (const [one, { row }] of state.rows) {
        if (one === verdict) { row.setAttribute("aria-current", "true"); reveal(row); } else row.removeAttribute("aria-current");
      }
      $("window").hidden = !verdict;
      $("no-window").hidden = Boolean(verdict);
      if (verdict) render(verdict);
      draw();
      neighbours();
      sync(push);
    }
    function reveal(row) {
      if (row.hidden) return;
      const top = row.offsetTop - list.offsetTop, room = list.clientHeight;
      if (top < list.scrollTop + 30 || top + row.offsetHeight > list.scrollTop + room) list.scrollTop = top - room / 2;
    }
    function sync(push) {
      if ($("windows").hidden) return;
      const on = values();
      writeHash({ view: "windows", pair: state.pair || "", w: state.w, game: on.game, sport: on.sport, winner: on.winner,
        flip: on.flip, error: on.error, empty: on.empty, q: search.value.trim() }, push);
    }
    function render(verdict) {
      const one = data.windows[verdict.w], { a, b } = pair(), query = search.value.trim();
      $("w-title").replaceChildren(el("bdi", {}, one.title || one.video));
      $("w-time").textContent = span(one);
      $("w-tags").replaceChildren(...[one.group && el("span", { class: "tag" }, one.group),
        el("span", { class: `tag ${verdict.winner === "a" || verdict.winner === "b" ? verdict.winner : ""}` }, outcome(verdict)),
        verdict.flip && el("span", { class: "tag flip" }, "flips with the order"), verdict.error && el("span", { class: "tag error" }, "call failed"),
        verdict.empty && el("span", { class: "tag" }, "empty text")].filter(Boolean));
      $("texts").replaceChildren(
        textPanel("ref", null, "Reference", one.ref === undefined ? null : { text: one.ref, steps: [] }, one, verdict, query, "no input of this report holds it"),
        textPanel("a", "A", nameOf(a), textOf(a, verdict.w), one, verdict, query, "not in the run's files"),
        textPanel("b", "B", nameOf(b), textOf(b, verdict.w), one, verdict, query, "not in the run's files"));
      $("votes").replaceChildren(...verdict.votes.map((vote) => votePanel(vote)));
      if (!verdict.votes.length) $("votes").replaceChildren(el("p", { class: "soft" }, "This window was not judged."));
      stage(one);
    }
    function textPanel(side, letter, name, said, one, verdict, query, missing) {
      const won = verdict.winner === side, count = said ? words(said.text) : 0, length = one.end - one.start;
      const meta = said ? `${plural(count, "word")} · ${(count / Math.max(length, 1e-6)).toFixed(2)} words per second` : "not known";
      const body = el("div", { class: "words", dir: "auto", tabindex: "0", role: "region", "aria-label": `${name}, text` });
      if (!said) body.append(el("p", { class: "silent" }, el("span"), missing));
      else if (!said.text.trim()) body.append(el("span", { class: "silent soft" }, "(said nothing)"));
      else if (said.steps.length) body.append(...lines(said.steps, query));
      else body.append(...marked(said.text, query));
      return el("article", { class: `panel ${side}${won ? " won" : ""}`, "data-side": side },
        el("header", {}, letter && badge(side, letter), el("h3", { title: name }, el("bdi", {}, name)), won && el("span", { class: `tag ${side}` }, "wins")),
        el("div", { class: "meta" }, meta), said && said.steps.length > 1 && rates(said.steps, one, name), body);
    }
    /** Steps joined to lines that read well: a line ends with a sentence, a silence or after twelve seconds. */
    function lines(steps, query) {
      const out = [];
      let open = null;
      for (const [start, end, text] of steps) {
        if (open && (start - open.end > 1.5 || end - open.start > 12 || /[.!?…]$/.test(open.text))) open = null;
        if (open) { open.text += ` ${text.trim()}`; open.end = end; } else out.push((open = { start, end, text: text.trim() }));
      }
      return out.map((line) => el("p", { "data-start": line.start, "data-end": line.end },
        el("button", { type: "button", title: "Play from here", "aria-label": `Play from ${clock(line.start)}`, onclick: () => seek(line.start) }, clock(line.start)),
        el("span", {}, ...marked(line.text, query))));
    }
    /** Words in each second of a window, as bars. */
    function rates(steps, one, name) {
      const length = Math.max(1, Math.ceil(one.end - one.start - 1e-6)), counts = new Array(length).fill(0);
      for (const [, end, text] of steps) {
        const place = Math.min(length - 1, Math.max(0, Math.ceil(end - one.start - 1e-6) - 1));
        counts[place] += words(text);
      }
      const most = Math.max(4, ...counts);
      return svg("svg", { class: "rate", viewBox: `0 0 ${length} 30`, preserveAspectRatio: "none", role: "img",
        "aria-label": `Words of ${name} in each second: at most ${Math.max(...counts)}, silent in ${counts.filter((n) => !n).length} of ${length}` },
      svg("line", { x1: 0, x2: length, y1: 29.5, y2: 29.5, "vector-effect": "non-scaling-stroke" }),
      ...counts.map((count, n) => svg("rect", { x: n + 0.1, width: 0.8, y: 29 - (count / most) * 28, height: (count / most) * 28, "data-at": one.start + n },
        svg("title"))).map((bar, n) => { bar.firstChild.textContent = `${clock(one.start + n)}: ${plural(counts[n], "word")}`; return bar; }));
    }
    function votePanel(vote) {
      const first = vote.order === "ab" ? "a" : "b", second = first === "a" ? "b" : "a";
      const kind = vote.choice || "error", call = vote.call || {};
      const told = vote.choice === null ? "no vote" : vote.choice === "tie" ? "tie" : `${nameOf(pair()[vote.choice])}`;
      const place = vote.choice === first ? " (shown first)" : vote.choice === second ? " (shown second)" : "";
      return el("article", { class: "panel vote" },
        el("div", { class: "row" }, el("span", { class: "soft small" }, "shown"), badge(first, KEYS[first]), el("span", { class: "soft small" }, "then"), badge(second, KEYS[second]),
          vote.repeat ? el("span", { class: "tag" }, `repeat ${vote.repeat}`) : null,
          el("span", { class: "said" }, badge(kind, told), `${told}${place}`)),
        vote.empty ? el("p", { class: "soft small" }, vote.empty === "ab" ? "Both texts are empty: a tie, no judge was asked." : `${nameOf(pair()[vote.empty])} said nothing: the other one wins, no judge was asked.`) : null,
        vote.error ? el("p", { class: "small" }, el("span", { class: "tag error" }, "error"), " ", vote.error) : null,
        call.reply !== undefined && call.reply !== null ? el("pre", { class: "reply", "aria-label": "Raw reply of the judge", dir: "auto", tabindex: "0" }, String(call.reply)) : null,
        facts(call, vote));
    }
    function facts(call, vote) {
      const rows = [...Object.entries(call).filter(([name]) => name !== "reply"), ["key", vote.key]].filter(([, value]) => value !== null && value !== "" && value !== undefined);
      if (!rows.length) return null;
      return el("details", {}, el("summary", { class: "soft small" }, "The call"),
        el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: "mono" }, typeof value === "string" ? value : JSON.stringify(value))])));
    }

    // Video and time line
    const video = $("video");
    function stage(one) {
      const source = data.videos[one.video];
      video.hidden = !source;
      $("video-note").hidden = Boolean(source) || !data.wanted;
      $("video-note").textContent = source ? "" : "The video is not in the folder that the report was made with.";
      if (!source) { video.removeAttribute("src"); state.video = null; return; }
      if (state.video !== one.video) {
        state.video = one.video;
        video.src = source;
        video.addEventListener("loadedmetadata", () => { video.currentTime = one.start; draw(); }, { once: true });
      } else if (video.currentTime < one.start || video.currentTime > one.end) video.currentTime = one.start;
    }
    video.addEventListener("error", () => {
      if (!video.getAttribute("src")) return;
      video.hidden = true;
      $("video-note").hidden = false;
      $("video-note").textContent = `The browser cannot play ${video.getAttribute("src")}: moved, or of a codec that it lacks.`;
    });
    function seek(seconds) {
      if (video.hidden) return;
      video.currentTime = seconds;
      video.play().catch(() => {});
    }
    video.addEventListener("timeupdate", () => {
      const now = video.currentTime, play = $("line").querySelector(".play");
      if (play && state.scale) { play.setAttribute("x1", state.scale(now)); play.setAttribute("x2", state.scale(now)); }
      for (const line of document.querySelectorAll("#texts .words p")) line.classList.toggle("now", now >= Number(line.dataset.start) && now < Number(line.dataset.end));
      for (const bar of document.querySelectorAll("#texts .rate rect")) bar.classList.toggle("now", now >= Number(bar.dataset.at) && now < Number(bar.dataset.at) + 1);
    });
    function draw() {
      const verdict = current() || state.shown[0], line = $("line");
      if (!verdict) { line.replaceChildren(); return; }
      const game = data.windows[verdict.w].video, kept = new Set(state.shown);
      const all = pair().verdicts.filter((one) => data.windows[one.w].video === game);
      const begin = Math.min(...all.map((one) => data.windows[one.w].start));
      let end = Math.max(...all.map((one) => data.windows[one.w].end));
      const from = begin > 0.15 * end && !data.videos[game] ? begin : 0; // without a video, no room for what is not judged
      if (state.video === game && Number.isFinite(video.duration)) end = Math.max(end, video.duration);
      const width = Math.max(320, line.clientWidth || 800), x = (at) => ((at - from) / Math.max(end - from, 1e-6)) * width;
      state.scale = x;
      line.setAttribute("viewBox", `0 0 ${width} 92`);
      const nodes = ticks(from, end, width, x);
      const most = Math.max(1, ...all.flatMap((one) => [pair().a, pair().b].map((who) => rateOf(who, one.w))));
      for (const one of all) {
        const w = data.windows[one.w], left = x(w.start), wide = Math.max(2, x(w.end) - left - 1), kind = verdictKind(one);
        const mark = svg("rect", { class: `w ${kind}${kept.has(one) ? "" : " dim"}`, x: left, y: 22, width: wide, height: 26, rx: 2, "data-w": w.id }, svg("title"));
        mark.firstChild.textContent = `${span(w)}: ${outcome(one)}`;
        mark.addEventListener("click", () => open(w.id, true));
        nodes.push(mark);
        [pair().a, pair().b].forEach((who, n) => {
          const high = (rateOf(who, one.w) / most) * 16;
          nodes.push(svg("rect", { class: `mini ${n ? "b" : "a"}`, x: left + (n * wide) / 2, width: Math.max(1, wide / 2 - 0.5), y: 70 - high, height: high }));
        });
        if (one === current()) nodes.push(svg("rect", { class: "pick", x: left - 2, y: 19, width: wide + 4, height: 32, rx: 4 }));
      }
      if (!video.hidden) nodes.push(svg("line", { class: "play", x1: x(video.currentTime), x2: x(video.currentTime), y1: 16, y2: 72 }));
      line.replaceChildren(...nodes);
      line.setAttribute("aria-label", `Time line of ${titleOf(game)}: ${plural(all.length, "window")}; arrow keys move`);
    }
    function rateOf(who, index) {
      const said = textOf(who, index), one = data.windows[index];
      if (!said) return 0;
      said.count ??= words(said.text);
      return said.count / Math.max(one.end - one.start, 1e-6);
    }
    function ticks(from, end, width, x) {
      const step = [1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200].find((one) => ((end - from) / one) * 64 < width) || 14400, out = [];
      for (let at = Math.ceil(from / step) * step; at <= end; at += step) {
        const text = svg("text", { x: x(at), y: 11, "text-anchor": x(at) < 20 ? "start" : x(at) > width - 20 ? "end" : "middle" });
        text.textContent = clock(at);
        out.push(svg("line", { class: "tick", x1: x(at), x2: x(at), y1: 16, y2: 72 }), text);
      }
      const label = svg("text", { x: 0, y: 86 });
      label.textContent = "words per second, A and B";
      out.push(svg("line", { class: "tick", x1: 0, x2: width, y1: 70.5, y2: 70.5 }), label);
      return out;
    }

    // Moving
    function step(by) {
      if (!state.shown.length) return;
      const at = state.shown.indexOf(current());
      const next = at < 0 ? 0 : Math.min(state.shown.length - 1, Math.max(0, at + by));
      open(data.windows[state.shown[next].w].id, true);
    }
    function neighbours() {
      const at = state.shown.indexOf(current());
      $("prev").disabled = at === 0 || !state.shown.length;
      $("next").disabled = at === state.shown.length - 1 || !state.shown.length;
      $("place").textContent = at < 0 ? "" : `${at + 1} of ${state.shown.length}`;
    }
    $("prev").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    $("copy").addEventListener("click", async () => {
      const address = `${location.href.split("#")[0]}${link(state.w)}`;
      try { await navigator.clipboard.writeText(address); $("copy").textContent = "Copied"; } catch { prompt("Link to this window", address); }
      setTimeout(() => { $("copy").textContent = "Copy link"; }, 1500);
    });
    list.addEventListener("click", (event) => {
      const row = event.target.closest("a");
      if (!row || event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      open(row.dataset.w, true);
      if (matchMedia("(max-width: 760px)").matches) $("detail").scrollIntoView();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => {
      if (event.target.id === "pair") { state.pair = Number($("pair").value); build(); }
      filter();
      if (event.target.id === "pair" || !state.shown.includes(current())) choose("");
      else if (event.target.id !== "pair") sync(false);
    });
    search.addEventListener("input", debounce(() => { filter(); const one = current(); if (one) render(one); sync(false); }, 90));
    $("clear").addEventListener("click", () => { form.reset(); $("pair").value = state.pair; filter(); sync(false); });
    addEventListener("resize", debounce(draw, 100));
    document.addEventListener("keydown", (event) => {
      if ($("windows").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
      const field = event.target.closest("input[type=search], select, textarea, video");
      if (event.key === "Escape" && field === search) { search.blur(); return; }
      if (field || (event.target.closest("input") && event.key.startsWith("Arrow"))) return;
      const moves = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1 };
      const inList = list.contains(event.target) || $("line").contains(event.target) || event.target === document.body;
      if (inList) Object.assign(moves, { ArrowDown: 1, ArrowUp: -1 });
      if (event.key in moves) {
        event.preventDefault();
        step(moves[event.key]);
        if (list.contains(event.target)) state.rows.get(current())?.row.focus({ preventScroll: true });
      } else if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); } else if (event.key === "f") form.elements.flip.click();
    });
    /** The window that is asked for, or the first that is shown. */
    function choose(id, push = false) {
      const known = id && byId.has(id) && pair().verdicts.some((verdict) => data.windows[verdict.w].id === id);
      const first = state.shown[0];
      open(known ? id : first ? data.windows[first.w].id : "", push);
    }
    function apply(hash) {
      state.pair = Math.min(data.pairs.length - 1, Math.max(0, Number(hash.get("pair")) || 0));
      const w = hash.get("w");
      if (w && !hash.has("pair")) {
        const holds = data.pairs.findIndex((one) => one.verdicts.some((verdict) => data.windows[verdict.w].id === w));
        if (holds > 0) state.pair = holds;
      }
      $("pair").value = state.pair;
      for (const name of ["game", "sport"]) { const value = hash.get(name) || ""; $(name).value = value; if ($(name).value !== value) $(name).value = ""; }
      for (const radio of form.elements.winner) radio.checked = radio.value === (hash.get("winner") || "");
      for (const name of ["flip", "error", "empty"]) form.elements[name].checked = Boolean(hash.get(name));
      search.value = hash.get("q") || "";
      build();
      filter();
      choose(w || state.w);
    }
    return { apply, shown: () => { build(); } };
  }

  // ---- Items of questions -----------------------------------------------------------------------------------------
  function makeItems() {
    if (!data.questions.some((part) => part.items.length)) return null;
    const box = $("items-list"), PAGE = 200;
    const state = { part: 0, shown: [], count: PAGE };
    const withItems = data.questions.map((part, n) => [n, part.task]).filter(([n]) => data.questions[n].items.length);
    options($("i-bench"), withItems);
    state.part = withItems[0][0];
    $("i-bench").hidden = withItems.length < 2;
    const part = () => data.questions[state.part];

    function setUp() {
      const tasks = [...new Set(part().items.map((item) => item.task))];
      options($("i-task"), [["", "All tasks"], ...tasks.map((task) => [task, task])]);
      options($("i-who"), [["", "Any contestant"], ...part().files.map((file, n) => [n, file.name])]);
      $("i-who").hidden = part().files.length < 2;
      const told = part().files.some((file) => file.unparsed);
      const kinds = [["", "All"], ["right", "Right"], ["wrong", "Wrong"], ...(told ? [["unparsed", "Unparsed"]] : []), ["none", "No reply"],
        ...(part().files.length > 1 ? [["differ", "Contestants differ"]] : [])];
      options($("i-kind"), kinds);
      for (const item of part().items) item.search ??= fold([item.id, item.question, item.video, item.answer, ...item.options, ...part().files.map((file) => file.replies[item.id] || "")].join("\n"));
    }
    function status(file, item) {
      const right = file.right[item.id];
      if (!(item.id in file.replies) || file.replies[item.id] === null) return "none";
      if (file.unparsed && file.unparsed.includes(item.id)) return "unparsed";
      return right === undefined ? "none" : right > 0 ? "right" : "wrong";
    }
    function filter() {
      const task = $("i-task").value, kind = $("i-kind").value, who = $("i-who").value, query = fold($("i-q").value.trim());
      const files = who === "" ? part().files : [part().files[Number(who)]];
      state.shown = part().items.filter((item) => {
        if (task && item.task !== task) return false;
        if (query && !item.search.includes(query)) return false;
        if (!kind) return true;
        if (kind === "differ") return new Set(part().files.map((file) => (file.right[item.id] || 0) > 0)).size > 1;
        return files.some((file) => { const is = status(file, item); return is === kind || (kind === "wrong" && is === "unparsed"); });
      });
      state.count = PAGE;
      render();
    }
    function render() {
      const all = part().items.length;
      $("i-count").textContent = state.shown.length === all ? plural(all, "item") : `${state.shown.length.toLocaleString("en")} of ${plural(all, "item")}`;
      box.replaceChildren(...state.shown.slice(0, state.count).map(row));
      $("i-more").hidden = state.shown.length <= state.count;
      $("i-none").hidden = state.shown.length > 0;
    }
    const TOLD = { right: ["yes", "✓"], wrong: ["no", "✗"], unparsed: ["flip", "?"], none: ["", "–"] };
    function row(item) {
      const marks = part().files.map((file) => { const [kind, sign] = TOLD[status(file, item)]; return el("span", { class: `tag ${kind}`, title: `${file.name}: ${status(file, item)}` }, sign); });
      const node = el("details", { "data-item": item.id }, el("summary", {}, el("span", { class: "t soft small" }, item.task), el("span", { class: "q" }, item.question), el("span", { class: "marks" }, ...marks)));
      node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(inside(item)); });
      return node;
    }
    function inside(item) {
      const letters = "ABCDEFGHIJ", source = data.videos[item.video];
      const at = source ? el("a", { href: `${source}#t=${item.time}`, target: "_blank", rel: "noopener" }, `${item.video} at ${clock(item.time)}`) : `${item.video} at ${clock(item.time)}`;
      return el("div", { class: "in" }, el("p", { dir: "auto" }, item.question), el("p", { class: "soft small" }, `${item.id} · ${item.group ? `${item.group} · ` : ""}`, at),
        item.options.length ? el("ol", {}, ...item.options.map((option, n) => el("li", { class: letters[n] === item.answer ? "right" : "" }, `${letters[n]}. ${option}${letters[n] === item.answer ? "  ✓" : ""}`)))
          : el("p", {}, el("span", { class: "soft" }, "Answer: "), item.answer),
        el("div", { class: "replies" }, ...part().files.map((file) => {
          const [kind] = TOLD[status(file, item)], reply = file.replies[item.id];
          return el("div", {}, el("p", { class: "small" }, el("b", {}, file.name), " ", el("span", { class: `tag ${kind}` }, status(file, item)), " ",
            ...Object.entries(file.parsed).map(([parser, answers]) => el("span", { class: "soft" }, ` ${parser}: ${answers[item.id] ?? "–"}`))),
          reply === undefined || reply === null ? el("p", { class: "soft small" }, "no reply") : el("pre", { dir: "auto", tabindex: "0" }, reply === "" ? "(empty)" : reply));
        })));
    }
    const form = $("i-form");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => { if (event.target.id === "i-bench") { state.part = Number($("i-bench").value); setUp(); } filter(); sync(); });
    $("i-q").addEventListener("input", debounce(() => { filter(); sync(); }, 90));
    $("i-more").addEventListener("click", () => { state.count += PAGE; render(); });
    function sync() {
      writeHash({ view: "items", bench: state.part || "", task: $("i-task").value, kind: $("i-kind").value, who: $("i-who").value, q: $("i-q").value.trim() }, false);
    }
    function apply(hash) {
      const bench = Number(hash.get("bench"));
      if (withItems.some(([n]) => n === bench)) state.part = bench;
      $("i-bench").value = state.part;
      setUp();
      for (const [id, name] of [["i-task", "task"], ["i-kind", "kind"], ["i-who", "who"]]) { const value = hash.get(name) || ""; $(id).value = value; if ($(id).value !== value) $(id).value = ""; }
      $("i-q").value = hash.get("q") || "";
      filter();
      const wanted = hash.get("i");
      if (wanted) {
        if (!state.shown.slice(0, state.count).some((item) => item.id === wanted)) { state.shown = part().items.filter((item) => item.id === wanted); render(); }
        const node = [...box.children].find((one) => one.dataset.item === wanted);
        if (node) { node.open = true; node.scrollIntoView({ block: "center" }); }
      }
    }
    return { apply, shown: () => {} };
  }

  const explorer = makeExplorer(), items = makeItems();
  /** Show what the address asks for. */
  function route() {
    const hash = readHash(), view = show(hash.get("view") || (hash.has("w") ? "windows" : hash.has("i") ? "items" : ""));
    if (view === "windows" && explorer) explorer.apply(hash);
    if (view === "items" && items) items.apply(hash);
  }
  addEventListener("hashchange", route);
  addEventListener("popstate", route);
  route();
  document.documentElement.dataset.ready = "true";
})();
