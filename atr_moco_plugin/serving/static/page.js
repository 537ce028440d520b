// The page of `serve`. No build step: this file is what the browser runs.
// Whatever comes from the server or the user gets into the page as text, never as HTML.

const byId = (id) => document.getElementById(id);
const player = byId("player"), query = byId("query"), list = byId("hits"), rerank = byId("rerank"), correct = byId("correct");
const MOST_CHARACTERS = 2000, STEP = 10, MOST_HITS = 50;
const MOST_RECORDED = 30; // seconds
const MOST_SENT = 32 * 2 ** 20, MOST_DECODED = 512 * 2 ** 20; // bytes: what the server takes, and what is tried here
const TITLE = "Find sounds by words";
const HTTPS_ONLY = "Browsers allow the microphone only on localhost or over HTTPS; drop a file here instead.";

let hits = []; // {data, item, url}: what is shown
let chosen = -1; // number of the hit that keys act on
let playing = null; // the hit in the player
let sound = null; // {blob, name, url}: the sound that is searched with, instead of words
let count = STEP;
let asked = null; // AbortController of the search under way

// ---- small things

const clock = (seconds) => {
  const whole = Math.floor(seconds + 1e-6), rest = Math.floor((seconds - whole) * 10 + 1e-6);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return (h ? `${h}:${two(m)}` : `${m}`) + `:${two(s)}` + (rest > 0 ? `.${rest}` : "");
};

// A newline in a file's name would look like a blank: show its picture. What turns the direction of
// writing would make a name look like another.
const visible = (text) => text
  .replace(/[\x00-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
  .replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

function say(text) { byId("status").textContent = text; }

function complain(text, place = byId("problem")) {
  place.textContent = text;
  place.hidden = !text;
}

const icon = (button, name) => button.querySelector("use").setAttribute("href", `#icon-${name}`);

async function problemOf(answer) {
  try { return (await answer.json()).error; } catch { return `The server answered with status ${answer.status}.`; }
}

async function fetched(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  throw Object.assign(new Error(await problemOf(answer)), { status: answer.status });
}

// ---- search

const correction = () => (correct?.checked ? Number(correct.value) : 0);

function address() {
  const wanted = new URLSearchParams();
  if (!sound && query.value.trim()) wanted.set("q", query.value.trim());
  if (rerank?.checked && !sound) wanted.set("rerank", "1");
  if (correct && !sound && correction() !== Number(correct.dataset.usual)) wanted.set("correct", correction());
  return wanted.toString() ? `/?${wanted}` : "/";
}

async function search({ push = true } = {}) {
  asked?.abort();
  complain("");
  const text = query.value.trim();
  if (!sound && !text) {
    show([]);
    say("Type what you want to hear, or drop a sound on the page.");
    document.title = TITLE;
    if (push) history.pushState(null, "", address());
    return;
  }
  if (!sound && text.length > MOST_CHARACTERS) {
    complain(`That are ${text.length.toLocaleString("en")} characters; a sentence has at most ${MOST_CHARACTERS.toLocaleString("en")}.`);
    return;
  }
  if (push && address() !== location.pathname + location.search) history.pushState(null, "", address());
  document.title = sound ? `Sounds like ${visible(sound.name)}` : `${text} – sounds`;
  const controller = (asked = new AbortController());
  list.setAttribute("aria-busy", "true");
  say("Searching …");
  try {
    const found = await (sound ? askBySound(controller.signal) : askByWords(text, controller.signal));
    if (asked !== controller) return;
    show(found.hits);
    const number = found.hits.length;
    const time = found.seconds < 1 ? `${Math.max(1, Math.round(found.seconds * 1000))} ms` : `${found.seconds.toFixed(1)} s`;
    say([number ? `${number} ${number === 1 ? "sound" : "sounds"} in ${time}` : "No sound was found.", found.note].filter(Boolean).join(". "));
  } catch (error) {
    if (error.name === "AbortError" || asked !== controller) return;
    show([]);
    say("");
    complain(error.message);
  } finally {
    if (asked === controller) list.setAttribute("aria-busy", "false");
  }
}

async function askByWords(text, signal) {
  const wanted = new URLSearchParams({ q: text, k: count });
  if (rerank?.checked) wanted.set("rerank", "1");
  if (correct) wanted.set("correct", correction());
  return (await fetched(`/api/search?${wanted}`, { signal })).json();
}

async function askBySound(signal) {
  const send = async (blob) => {
    const wanted = new URLSearchParams({ k: count, name: sound.name });
    const options = { method: "POST", body: blob, signal, headers: { "Content-Type": "application/octet-stream" } };
    return (await fetched(`/api/search?${wanted}`, options)).json();
  };
  let problem = new Error("The file has more than 32 MiB; search with a shorter part of it.");
  if (sound.blob.size <= MOST_SENT) {
    try {
      return await send(sound.blob);
    } catch (error) {
      if (error.status !== 400 || sound.decoded) throw error;
      problem = error;
    }
  }
  // What the server cannot read (AAC, WebM) or is too large, the browser may read and send as mono.
  const waveform = sound.blob.size <= MOST_DECODED ? await decoded(sound.blob).catch(() => null) : null;
  if (!waveform || waveform.size > MOST_SENT) throw problem;
  Object.assign(sound, { blob: waveform, decoded: true });
  return send(waveform);
}

// ---- hits

function show(found) {
  stop();
  for (const hit of hits) if (hit.url) URL.revokeObjectURL(hit.url);
  const kept = chosen >= 0 && found.length > hits.length && hits.every((hit, n) => hit.data.window === found[n].window) ? chosen : -1;
  hits = found.map((data) => ({ data, item: byId("hit").content.firstElementChild.cloneNode(true), url: null }));
  hits.forEach(fill);
  list.replaceChildren(...hits.map((hit) => hit.item));
  chosen = -1;
  if (kept >= 0) choose(kept);
  else if (hits.length) hits[0].item.tabIndex = 0; // the tab key reaches one, and the arrows the rest
  byId("more").hidden = !(found.length === count && count < MOST_HITS);
}

function fill(hit, number) {
  const { data, item } = hit, part = (name) => item.querySelector(name);
  const name = visible(data.name), [start, end] = data.moment, [first, last] = data.cut;
  part(".name").textContent = name;
  part(".folder").textContent = visible(data.folder);
  part(".name").title = part(".folder").title = data.path;
  part(".time").textContent = `${clock(start)} – ${clock(end)} of ${clock(data.seconds)}`;
  part(".time").title = `fits from ${clock(data.start)} to ${clock(data.end)}`;
  part(".score").textContent = (data.reranked ?? data.score).toFixed(2);
  const cosine = data.score === data.cosine ? "cosine of sentence and sound" : `cosine ${data.cosine.toFixed(2)}, less what the sound has in common with all sentences`;
  part(".score").title = data.reranked === null ? cosine : `matching head, log-odds + cosine / temperature; cosine ${data.cosine.toFixed(2)}`;
  part(".play").setAttribute("aria-label", `Play ${name} from ${clock(start)}`);
  part(".copy").setAttribute("aria-label", `Copy the path of ${name}`);
  item.setAttribute("aria-label", `${number + 1}: ${name}, ${clock(start)} to ${clock(end)}`);
  const share = (seconds) => `${Math.min(100, Math.max(0, (100 * (seconds - first)) / (last - first)))}%`;
  part(".before").style.width = share(start);
  part(".before").hidden = start - first < 0.01;
  part(".after").style.width = share(first + last - end);
  part(".after").hidden = last - end < 0.01;
  const image = part("img");
  image.addEventListener("error", () => image.classList.add("missing"));
  complain(data.problem, part(".problem"));
  if (data.gone) {
    image.remove();
    part(".play").setAttribute("aria-disabled", "true");
  } else {
    part("source").srcset = `${data.picture}&dark=1`;
    image.src = data.picture;
    image.alt = `Spectrogram of ${name} from ${clock(first)} to ${clock(last)}`;
  }
  item.addEventListener("focusin", () => choose(number, false));
  item.addEventListener("pointerdown", () => choose(number, false));
  part(".play").addEventListener("click", () => toggle(hit));
  part(".copy").addEventListener("click", () => copy(hit));
  part(".picture").addEventListener("click", (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    play(hit, ((event.clientX - box.left) / box.width) * (last - first));
  });
}

function choose(number, focus = true) {
  if (!hits.length) return;
  hits[chosen]?.item.classList.remove("chosen");
  hits[chosen]?.item.removeAttribute("aria-current");
  for (const hit of hits) hit.item.tabIndex = -1;
  chosen = Math.min(hits.length - 1, Math.max(0, number));
  const { item } = hits[chosen];
  item.classList.add("chosen");
  item.setAttribute("aria-current", "true");
  item.tabIndex = 0;
  for (const hit of hits) hit.item.querySelectorAll("button").forEach((button) => { button.tabIndex = hit.item === item ? 0 : -1; });
  if (!focus) return;
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}

async function copy(hit) {
  const text = hit.data.path, button = hit.item.querySelector(".copy");
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without HTTPS there is no clipboard but this one
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    hit.item.focus({ preventScroll: true });
    if (!done) return complain(`The browser allows no copying; the path is ${visible(text)}`, hit.item.querySelector(".problem"));
  }
  icon(button, "done");
  setTimeout(() => icon(button, "copy"), 1500);
  say("Copied the path.");
}

// ---- playing

async function play(hit, from = hit.data.moment[0] - hit.data.cut[0]) {
  const place = hit.item.querySelector(".problem");
  if (hit.data.gone) return;
  if (playing !== hit) {
    stop();
    playing = hit;
    try {
      // As a whole: the browser then seeks in it, which it could not in a stream.
      hit.url ??= URL.createObjectURL(await (await fetched(hit.data.sound)).blob());
    } catch (error) {
      if (playing === hit) playing = null;
      return complain(error.message, place);
    }
    if (playing !== hit) return;
    player.src = hit.url;
  }
  complain(hit.data.problem, place);
  player.currentTime = Math.max(0, from);
  try {
    await player.play();
  } catch (error) {
    if (error.name !== "AbortError") complain("The browser does not play this sound.", place);
  }
}

function toggle(hit) {
  if (playing !== hit) return play(hit);
  if (player.paused) player.play().catch(() => {});
  else player.pause();
}

function stop() {
  player.pause();
  const hit = playing;
  playing = null;
  if (hit) draw(hit, false);
}

function draw(hit, on) {
  const button = hit.item.querySelector(".play"), head = hit.item.querySelector(".head");
  icon(button, on ? "pause" : "play");
  button.setAttribute("aria-pressed", String(on));
  head.hidden = playing !== hit;
  const seconds = hit.data.cut[1] - hit.data.cut[0];
  head.style.left = `${Math.min(100, (100 * player.currentTime) / seconds)}%`;
}

function follow() {
  if (!playing) return;
  draw(playing, !player.paused);
  if (!player.paused) requestAnimationFrame(follow);
}

for (const name of ["play", "pause", "seeked"]) player.addEventListener(name, follow);
player.addEventListener("ended", stop);

// ---- a sound as the query

function useSound(blob, name, isDecoded = false) {
  forget();
  sound = { blob, name, decoded: isDecoded, url: URL.createObjectURL(blob) };
  query.value = "";
  count = STEP;
  byId("sound-name").textContent = visible(name);
  byId("sound").hidden = false;
  for (const part of [rerank, correct]) if (part) part.disabled = true; // both are for sentences
  return search();
}

function forget() {
  if (sound) URL.revokeObjectURL(sound.url);
  sound = null;
  byId("sound").hidden = true;
  for (const part of [rerank, correct]) if (part) part.disabled = false;
}

function useFiles(files) {
  if (!files.length) return;
  useSound(files[0], files[0].name).then(() => {
    if (files.length > 1) complain(`Only the first of ${files.length} files was taken.`);
  });
}

// Any sound the browser knows, as a WAV file: mono, 16 bits, 48 kHz.
async function decoded(blob) {
  const rate = 48000, context = new OfflineAudioContext(1, 1, rate);
  const whole = await context.decodeAudioData(await blob.arrayBuffer()); // resamples to the context's rate
  const mono = new Float32Array(whole.length);
  for (let c = 0; c < whole.numberOfChannels; c++) {
    whole.getChannelData(c).forEach((value, n) => { mono[n] += value / whole.numberOfChannels; });
  }
  const bytes = new DataView(new ArrayBuffer(44 + 2 * mono.length));
  const word = (at, text) => [...text].forEach((c, n) => bytes.setUint8(at + n, c.charCodeAt(0)));
  word(0, "RIFF"); bytes.setUint32(4, 36 + 2 * mono.length, true); word(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, 2 * rate, true); bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true); word(36, "data"); bytes.setUint32(40, 2 * mono.length, true);
  mono.forEach((value, n) => bytes.setInt16(44 + 2 * n, Math.round(32767 * Math.min(1, Math.max(-1, value))), true));
  return new Blob([bytes.buffer], { type: "audio/wav" });
}

const recordButton = byId("record");
let recorder = null;

function canRecord() { return Boolean(window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.MediaRecorder); }

if (!canRecord()) {
  recordButton.setAttribute("aria-disabled", "true");
  recordButton.title = HTTPS_ONLY;
  recordButton.setAttribute("aria-label", `Record a sound: not possible here. ${HTTPS_ONLY}`);
}

async function record() {
  if (!canRecord()) return complain(HTTPS_ONLY);
  if (recorder) return recorder.stop();
  stop();
  complain("");
  let stream;
  try {
    // As it sounds: what makes speech clear takes sounds away.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    return complain(error.name === "NotAllowedError"
      ? "The browser was not allowed to use the microphone; allow it in the address bar."
      : "No microphone was found.");
  }
  const chunks = [], begun = Date.now();
  recorder = new MediaRecorder(stream);
  const tick = () => {
    const seconds = (Date.now() - begun) / 1000;
    byId("clock").textContent = clock(Math.floor(seconds));
    if (seconds >= MOST_RECORDED && recorder?.state === "recording") recorder.stop();
  };
  const timer = setInterval(tick, 250);
  tick();
  recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
  recorder.addEventListener("stop", async () => {
    clearInterval(timer);
    for (const track of stream.getTracks()) track.stop();
    const { mimeType: type, discarded } = recorder;
    recorder = null;
    look(false);
    say("");
    if (discarded) return;
    try {
      useSound(await decoded(new Blob(chunks, { type })), "your recording", true);
    } catch {
      complain("The browser could not read its own recording; try again for longer.");
    }
  });
  const look = (on) => {
    recordButton.setAttribute("aria-pressed", String(on));
    recordButton.setAttribute("aria-label", on ? "Stop and search with the recording" : "Record a sound to search with");
    icon(recordButton, on ? "stop" : "microphone");
    if (!on) byId("clock").textContent = "";
  };
  look(true);
  say("Recording … press the button again to search, Esc to throw it away.");
  recorder.start();
}

// ---- what the user does

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  forget();
  count = STEP;
  search().then(() => { if (hits.length && document.activeElement === query) choose(0); });
});
for (const part of [rerank, correct]) part?.addEventListener("change", () => { if (query.value.trim()) search(); });
byId("more").addEventListener("click", () => { count = Math.min(MOST_HITS, count + STEP); search(); });
recordButton.addEventListener("click", record);
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => { useFiles([...event.target.files]); event.target.value = ""; });
byId("forget").addEventListener("click", () => { forget(); search(); query.focus(); });
byId("replay").addEventListener("click", () => {
  stop();
  player.src = sound.url;
  player.play().catch(() => complain("The browser does not play this sound."));
});

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
let depth = 0; // dragenter and dragleave come for every element
const over = (more) => { depth = Math.max(0, depth + more); byId("drop").hidden = depth === 0; };
addEventListener("dragenter", (event) => { if (hasFiles(event)) { event.preventDefault(); over(1); } });
addEventListener("dragleave", (event) => { if (hasFiles(event)) over(-1); });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  over(0);
  useFiles([...event.dataTransfer.files]);
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=text]"), current = hits[chosen];
  const keys = {
    ArrowDown: () => choose(chosen + 1),
    ArrowUp: () => { if (chosen <= 0) query.focus(); else choose(chosen - 1); },
    Escape: () => { if (recorder) { recorder.discarded = true; recorder.stop(); } stop(); if (typing) query.blur(); },
  };
  const more = {
    "/": () => { query.focus(); query.select(); },
    j: keys.ArrowDown,
    k: () => choose(chosen - 1),
    c: () => current && copy(current),
  };
  // On a button, space and Enter press it.
  if (!event.target.matches("button, input")) {
    more[" "] = () => (hits.length ? (current || choose(0), toggle(hits[chosen])) : undefined);
    more.Enter = more[" "];
  }
  // In the box, a slash is a slash; one that was to lead there is not.
  if (typing && event.key === "/" && !query.value) event.preventDefault();
  const act = keys[event.key] ?? (typing ? undefined : more[event.key]);
  if (!act || (typing && event.key === "ArrowDown" && !hits.length)) return;
  event.preventDefault();
  act();
});

addEventListener("popstate", () => {
  const wanted = new URLSearchParams(location.search);
  forget();
  query.value = wanted.get("q") ?? "";
  if (rerank) rerank.checked = wanted.has("rerank");
  if (correct) correct.checked = Number(wanted.get("correct") ?? correct.dataset.usual) > 0;
  count = STEP;
  search({ push: false });
});

// The token is in a cookie by now: it need not stand in the history.
if (new URLSearchParams(location.search).has("token")) {
  const rest = new URLSearchParams(location.search);
  rest.delete("token");
  history.replaceState(null, "", rest.toString() ? `/?${rest}` : "/");
}
if (query.value.trim()) search({ push: false });
else say("Type what you want to hear, or drop a sound on the page.");
