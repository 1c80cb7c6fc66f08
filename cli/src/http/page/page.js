
"use strict";
// Draws what the program sends, as text and nothing else: no part of it is ever read as markup.
(() => {
  const by = (id) => document.getElementById(id);
  const make = (name, kind, text) => {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const lostAfter = 40_000;
  const retryAfter = 5_000;
  // A stream that ends and begins again is no news.
  const graceFor = 3_000;
  let ahead = 0;
  // When something was heard last, and since when this stream is waited for.
  let heard = Date.now();
  let since = heard;
  let events;
  let lostTimer;
  let title = document.title;
  const drawn = new Map();

  const span = (milliseconds) => {
    const seconds = Math.max(0, Math.round(milliseconds / 1000));
    const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
    if (days) return `${days} d ${hours % 24} h`;
    if (hours) return `${hours} h ${minutes % 60} min`;
    if (minutes >= 10) return `${minutes} min`;
    if (minutes) return `${minutes} min ${seconds % 60} s`;
    return `${seconds} s`;
  };
  const passed = (element) => {
    const left = Number(element.dataset.at) - (Date.now() + ahead);
    if (element.dataset.time === "for") return span(-left);
    if (element.dataset.time === "ago") return `${span(-left)} ago`;
    return left > 0 ? `in ${span(left)}` : "now";
  };
  const tick = () => {
    // What is not true any more does not count on.
    const isLive = document.body.dataset.state !== "lost";
    for (const element of isLive ? document.querySelectorAll(".time") : []) {
      const text = passed(element);
      if (element.textContent !== text) element.textContent = text;
    }
    // A connection may die without a word, as where the machine slept.
    if (Date.now() - since > lostAfter) {
      lost("no news for a while; trying again");
      follow();
    }
  };

  const part = (one) => {
    const element = make("span", one.kind, one.text ?? "");
    if (one.kind === "code") return make("code", "whole", one.text);
    if (one.tone) element.dataset.tone = one.tone;
    if (one.kind === "time") {
      element.dataset.time = one.time;
      element.dataset.at = one.at;
      element.textContent = passed(element);
    }
    if (one.kind === "bar") {
      element.style.setProperty("--share", one.share);
      element.setAttribute("aria-hidden", "true");
    }
    return element;
  };
  const fill = (element, parts) => {
    element.replaceChildren();
    parts.forEach((one, index) => {
      if (index) element.append(" ");
      element.append(part(one));
    });
    return element;
  };

  const table = (section) => {
    // On narrow screens the style makes blocks of tables, which would take their meaning away as well.
    const as = (element, role) => {
      element.setAttribute("role", role);
      return element;
    };
    const element = as(make("table"), "table");
    element.setAttribute("aria-labelledby", `title-${section.id}`);
    const head = as(as(element.createTHead(), "rowgroup").insertRow(), "row");
    for (const column of section.columns) head.append(as(make("th", "", column), "columnheader"));
    const body = as(element.createTBody(), "rowgroup");
    for (const row of section.rows) {
      const line = as(body.insertRow(), "row");
      row.forEach((cell, index) => {
        const place = as(line.insertCell(), "cell");
        place.dataset.label = section.columns[index] ?? "";
        place.append(fill(make("div"), cell));
      });
    }
    return element;
  };
  const draw = (section) => {
    const element = make("section", section.is_log ? "log" : "");
    element.id = `section-${section.id}`;
    const title = make("h2", "", section.title);
    title.id = `title-${section.id}`;
    element.append(title);
    if (section.note) element.append(make("p", "soft", section.note));
    element.append(section.rows.length ? table(section) : make("p", "empty", section.empty));
    return element;
  };

  // Only what has changed is drawn anew: a selection elsewhere stays.
  const changed = (key, value) => {
    const text = JSON.stringify(value);
    const differs = drawn.get(key) !== text;
    drawn.set(key, text);
    return differs;
  };
  const show = (view) => {
    if (changed("headline", view.headline)) {
      const { tone, state, reason, why } = view.headline;
      by("headline").dataset.tone = tone;
      by("state").textContent = state;
      by("reason").textContent = reason;
      by("why").replaceChildren(...why.map((line) => make("li", "", line)));
    }
    by("program").textContent = view.program;
    by("version").textContent = view.version;
    if (by("peer").textContent !== view.peer_id) by("peer").textContent = view.peer_id;
    title = `${view.headline.state} · ${view.program}`;
    document.title = title;
    if (changed("figures", view.figures)) {
      by("figures").replaceChildren(...view.figures.map((one) => {
        const tile = make("div");
        tile.append(make("dt", "", one.label), fill(make("dd"), [one.value]));
        return tile;
      }));
    }
    const sections = by("sections");
    const wanted = view.sections.map((section) => `section-${section.id}`);
    for (const old of [...sections.children]) {
      if (wanted.includes(old.id)) continue;
      drawn.delete(old.id);
      old.remove();
    }
    view.sections.forEach((section, index) => {
      const old = by(`section-${section.id}`);
      if (!changed(`section-${section.id}`, section) && old) return;
      const fresh = draw(section);
      if (old) old.replaceWith(fresh);
      else sections.insertBefore(fresh, sections.children[index] ?? null);
    });
  };

  const say = (state, text) => {
    const line = by("line");
    if (document.body.dataset.state === state && line.textContent === text) return;
    document.body.dataset.state = state;
    line.textContent = text;
  };
  const lost = (text) => {
    const at = new Date(heard).toLocaleTimeString();
    say("lost", drawn.size ? `${text}; this is how it was at ${at}` : text);
    document.title = `(lost) ${title}`;
  };
  const hear = (now) => {
    clearTimeout(lostTimer);
    lostTimer = undefined;
    heard = since = Date.now();
    ahead = now - heard;
    say("live", "live");
    document.title = title;
  };
  const follow = () => {
    events?.close();
    since = Date.now();
    const source = new EventSource("events");
    events = source;
    source.addEventListener("view", (event) => {
      const { now, view } = JSON.parse(event.data);
      hear(now);
      show(view);
    });
    source.addEventListener("beat", (event) => hear(Number(event.data)));
    source.addEventListener("error", () => {
      const text = "not connected; trying again";
      lostTimer ??= setTimeout(() => lost(text), graceFor);
      // The browser tries again by itself, unless it was told that it cannot be served.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source === events && follow(), retryAfter);
    });
  };
  setInterval(tick, 1_000);
  follow();
})();
