"use strict";

// The playground and the state of the pool. All text from the server is inserted as text, never as
// HTML; markdown.js turns answers into elements.

// Longer answers are shown as plain text, because an answer is rendered again with each piece.
const MARKDOWN_MAX = 200000;
// A conversation scrolls along if it is this near to its end, in pixels.
const NEAR = 8;
// A receipt is written a moment after its answer.
const RECEIPT_TRIES = 20;

const by = (id) => document.getElementById(id);
const conversation = [];
let asking = null;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function headers() {
  const all = { "Content-Type": "application/json" };
  const key = by("key").value.trim();
  if (key) all.Authorization = "Bearer " + key;
  return all;
}

// ---- the playground

// Changes the conversation, and keeps its end visible if it was visible before.
function change(what) {
  const box = by("messages");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight <= NEAR;
  what();
  if (follows) box.scrollTop = box.scrollHeight;
}

function say(role, text) {
  const node = element("div", "message " + role);
  const body = element("div", "body", text);
  node.append(body);
  by("messages").append(node);
  // Scrolls to the question that was just sent.
  by("messages").scrollTop = by("messages").scrollHeight;
  return { node, body };
}

function draw(body, thoughts, answer) {
  change(() => {
    const plain = answer.length > MARKDOWN_MAX;
    body.classList.toggle("plain", plain);
    body.replaceChildren(...(plain ? [answer] : markdown(answer)));
    if (thoughts) body.prepend(element("div", "thoughts", thoughts));
  });
}

function request() {
  const messages = [];
  const system = by("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  messages.push(...conversation);
  const body = {
    model: by("models").value,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  };
  // The server chooses what is left empty: an answer may have as many tokens as fit, and is drawn by
  // the model's own settings.
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if (by(name).value !== "") body[name] = Number(by(name).value);
  }
  return body;
}

// Calls `take` with each event of a stream of server-sent events, and `note` with each comment.
async function events(response, take, note) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      for (const line of buffer.slice(0, end).split("\n")) {
        if (line.startsWith(":")) note(line.slice(1).trim());
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const object = JSON.parse(data);
        if (object.error) throw new Error(object.error.message);
        take(object);
      }
      buffer = buffer.slice(end + 2);
    }
  }
}

async function refused(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return "the server answers " + response.status;
  }
}

async function ask(text) {
  conversation.push({ role: "user", content: text });
  say("user", text);
  const { node, body } = say("assistant", "");
  const under = element("span", "under", "");
  node.append(under);
  const control = asking = new AbortController();
  by("send").disabled = true;
  by("stop").disabled = false;
  let answer = "", thoughts = "", id = "", usage = null, first = 0, reason = "", drawing = 0;
  const start = performance.now();
  const show = () => {
    drawing = 0;
    draw(body, thoughts, answer);
  };
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request()), signal: control.signal,
    });
    if (!response.ok) throw new Error(await refused(response));
    await events(response, (chunk) => {
      id = chunk.id;
      if (chunk.usage) usage = chunk.usage;
      for (const choice of chunk.choices) {
        const said = choice.delta.content || "", thought = choice.delta.reasoning_content || "";
        if ((said || thought) && !first) first = performance.now();
        answer += said;
        thoughts += thought;
        reason = choice.finish_reason || reason;
      }
      if (!drawing) drawing = requestAnimationFrame(show);
    }, (comment) => change(() => { under.textContent = comment; }));
    change(() => finished(under, { id, usage, start, first, reason }));
  } catch (error) {
    const isStopped = error.name === "AbortError";
    if (!isStopped) node.classList.add("error");
    change(() => { under.textContent = isStopped ? "stopped" : String(error.message); });
  }
  if (drawing) cancelAnimationFrame(drawing);
  show();
  // The conversation may have been started anew meanwhile; then this answer is dropped.
  if (asking !== control) return;
  if (answer) conversation.push({ role: "assistant", content: answer });
  else conversation.pop();
  asking = null;
  by("send").disabled = false;
  by("stop").disabled = true;
}

function finished(under, { id, usage, start, first, reason }) {
  if (!usage) return;
  const seconds = (performance.now() - start) / 1000;
  const wait = first ? (first - start) / 1000 : seconds;
  by("speed").textContent = (usage.completion_tokens / seconds).toFixed(1) + " tokens/s";
  under.textContent = usage.prompt_tokens + " + " + usage.completion_tokens + " tokens, first after "
    + wait.toFixed(2) + " s " + (reason === "length" ? "(cut off: no more tokens were allowed) " : "");
  const link = element("a", "", "receipt");
  link.href = "v1/receipts/" + encodeURIComponent(id);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    receipt(link, id);
  });
  under.append(link);
}

// Fetches a receipt, with the key where there is one, and offers it as a file.
async function receipt(link, id) {
  link.textContent = "receipt ...";
  try {
    for (let tried = 1; ; tried += 1) {
      const response = await fetch(link.href, { headers: headers() });
      if (response.ok) {
        const file = document.createElement("a");
        file.href = URL.createObjectURL(await response.blob());
        file.download = id + ".json";
        file.click();
        setTimeout(() => URL.revokeObjectURL(file.href), 10000);
        link.textContent = "receipt";
        return;
      }
      if (response.status !== 404 || tried === RECEIPT_TRIES) throw new Error(await refused(response));
      await new Promise((done) => setTimeout(done, 250));
    }
  } catch (error) {
    link.textContent = "receipt: " + error.message;
  }
}

by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = by("prompt").value.trim();
  if (!text || asking) return;
  by("prompt").value = "";
  ask(text);
});
by("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    by("ask").requestSubmit();
  }
});
by("stop").addEventListener("click", () => asking && asking.abort());
by("clear").addEventListener("click", () => {
  if (asking) asking.abort();
  asking = null;
  by("send").disabled = false;
  by("stop").disabled = true;
  conversation.length = 0;
  by("messages").replaceChildren();
});
by("key").addEventListener("change", models);

async function models() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) return;
    const names = (await response.json()).data.map((model) => model.id);
    by("model").textContent = names[0] || "";
    by("models").replaceChildren(...names.map((name) => {
      const option = element("option", "", name);
      option.value = name;
      return option;
    }));
  } catch { /* the state of the pool says that the server is gone */ }
}

// ---- the pool

const amount = (bytes) => bytes >= 2 ** 30 ? (bytes / 2 ** 30).toFixed(1) + " GiB"
  : bytes >= 2 ** 20 ? (bytes / 2 ** 20).toFixed(0) + " MiB" : (bytes / 1024).toFixed(0) + " KiB";
const short = (id) => id.slice(0, 8);
const sum = (list, get) => list.reduce((total, item) => total + get(item), 0);

function stageBox(stage) {
  const box = element("div", "stage");
  box.append(element("strong", "", "layers " + stage.layers[0] + ".." + stage.layers[1]));
  box.append(element("span", "quiet", short(stage.worker) + " " + stage.device));
  const all = stage.compute_seconds + stage.wait_seconds;
  const busy = all > 0 ? stage.compute_seconds / all : 0;
  const bar = element("div", "bar");
  const fill = element("i");
  fill.style.width = (100 * busy).toFixed(0) + "%";
  bar.title = (100 * busy).toFixed(0) + " % busy, " + stage.passes + " passes, queue "
    + (stage.passes ? 1000 * stage.queue_seconds / stage.passes : 0).toFixed(2) + " ms a pass";
  bar.append(fill);
  box.append(bar);
  return box;
}

function pipelineRow(pipeline) {
  const row = element("div", "pipeline");
  pipeline.stages.forEach((stage, index) => {
    row.append(stageBox(stage));
    if (index + 1 < pipeline.stages.length) {
      const wire = stage.passes ? 1000 * stage.link.wire_seconds / stage.passes : 0;
      row.append(element("div", "link", "\u2192 " + amount(stage.link.bytes) + ", " + wire.toFixed(2) + " ms"));
    }
  });
  if (!pipeline.stages.length) row.append(element("span", "quiet", "no stages yet"));
  return row;
}

function show(pool) {
  const lines = pool.pipelines;
  const state = by("state");
  state.textContent = pool.ready ? "ready" : pool.state || "not ready";
  state.className = "badge " + (pool.ready ? "good" : "bad");
  state.title = pool.state;
  by("rate").textContent = sum(lines, (p) => p.tokens_per_second).toFixed(1);
  by("active").textContent = sum(lines, (p) => p.active);
  by("waiting").textContent = sum(lines, (p) => p.waiting);
  const pages = sum(lines, (p) => p.pages), queries = sum(lines, (p) => p.prefix_queries);
  by("cache").textContent = pages ? Math.round(100 * sum(lines, (p) => p.pages_used) / pages) + " %" : "-";
  by("hits").textContent = queries ? Math.round(100 * sum(lines, (p) => p.prefix_hits) / queries) + " %" : "-";
  by("failovers").textContent = pool.failovers;
  by("failovers").title = pool.last_resume_seconds === null ? ""
    : "tokens again after " + pool.last_resume_seconds.toFixed(2) + " s";
  const { agreed, disagreed } = pool.audits;
  by("audits").textContent = agreed + (disagreed ? " (" + disagreed + " not)" : "");
  by("pipelines").replaceChildren(...lines.map(pipelineRow));
  by("workers").replaceChildren(...pool.workers.map((worker) => {
    const row = element("tr");
    row.append(element("td", "", short(worker.id)), element("td", "", worker.device),
      element("td", "", worker.doing), element("td", "number", amount(worker.memory_bytes)));
    return row;
  }));
}

async function watch() {
  try {
    const response = await fetch("api/pool", { headers: headers() });
    if (response.status === 401) {
      by("state").textContent = "needs an API key (Settings)";
    } else {
      show(await response.json());
    }
  } catch {
    by("state").textContent = "no answer from the server";
    by("state").className = "badge bad";
  }
  setTimeout(watch, 1000);
}

models();
watch();
