"use strict";
// Okabe and Ito's colours, told apart by colour-blind people too, and darker ones of the same.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
  "#7B4B94", "#8C510A", "#01665E", "#B2182B", "#4D4D4D"];
const LEFT = 52, RIGHT = 18, TOP = 8, BOTTOM = 22, UNIT_ROW = 20;

const at = (id) => document.getElementById(id);
const film = at("film");
let answer = null;      // what the server said
let rows = [];          // frames of the chosen person, in order of time
let request = null;
let maxUploadBytes = Infinity;
let shownSource = "";
let savedSource = "";

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

function headers() {
  const token = sessionStorage.getItem("mien-token");
  return token ? { Authorization: "Bearer " + token } : {};
}

async function tellModel() {
  const reply = await fetch("model", { headers: headers() });
  at("access").hidden = reply.status !== 401;
  if (!reply.ok) {
    at("model").textContent = reply.status === 401 ? "This server wants a token." : "No answer.";
    return;
  }
  const card = await reply.json();
  maxUploadBytes = card.limits.max_upload_bytes;
  at("model").textContent =
    card.name + ": " + card.method + ", " + card.classes.length + " classes, " +
    card.weights_sha256.slice(0, 12) + (card.licence ? ", licence " + card.licence : "");
}

function warn(texts, isError) {
  at("warnings").replaceChildren(
    ...texts.map((text) => element("li", text, isError ? { class: "error" } : {})));
}

function send(file) {
  if (request) request.abort();
  warn([]);
  at("result").hidden = true;
  if (file.size > maxUploadBytes) {
    warn([file.name + " is larger than " + Math.floor(maxUploadBytes / 1048576) +
      " MiB, the most that is taken here."], true);
    return;
  }
  at("progress").hidden = false;
  at("stage").textContent = "Uploading " + file.name;
  at("bar").value = 0;
  const form = new FormData();
  const [windowS, stepS] = at("window").value.split(" ");
  if (windowS) {
    form.append("window_s", windowS);
    form.append("step_s", stepS);
  }
  form.append("file", file, file.name);
  const asked = new XMLHttpRequest();
  request = asked;
  asked.open("POST", "predict");
  for (const [name, value] of Object.entries(headers())) asked.setRequestHeader(name, value);
  asked.upload.onprogress = (event) => {
    if (event.lengthComputable) at("bar").value = event.loaded / event.total;
  };
  asked.upload.onload = () => {
    at("stage").textContent = "Reading " + file.name;
    at("bar").removeAttribute("value");
  };
  asked.onload = () => take(asked, file);
  asked.onerror = () => warn(["The server does not answer."], true);
  asked.onloadend = () => {
    if (request === asked) {
      request = null;
      at("progress").hidden = true;
    }
  };
  asked.send(form);
}

function take(asked, file) {
  let said = null;
  try { said = JSON.parse(asked.responseText); } catch (error) { said = null; }
  if (asked.status !== 200 || said === null) {
    if (asked.status === 401) at("access").hidden = false;
    const told = said && said.error ? said.error.message : asked.responseText;
    warn([told || "The server answered with status " + asked.status + "."], true);
    return;
  }
  answer = said;
  warn(answer.warnings);
  at("result").hidden = false;
  at("title").textContent = answer.input + ", " + answer.duration_s.toFixed(1) + " s";
  show(file);
  choosePeople();
}

function show(file) {
  if (shownSource) URL.revokeObjectURL(shownSource);
  if (savedSource) URL.revokeObjectURL(savedSource);
  shownSource = URL.createObjectURL(file);
  at("unplayable").hidden = true;
  film.src = shownSource;
  const text = JSON.stringify(answer, null, 1);
  savedSource = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  at("save").href = savedSource;
  at("save").download = answer.input + ".json";
}

function choosePeople() {
  const people = answer.people;
  const names = people.map((person) => element("option",
    person.track === null ? "whole picture" : "person " + person.track,
    { value: String(person.track) }));
  at("person").replaceChildren(...names);
  at("whose").hidden = people.length < 2;
  choosePerson();
}

function choosePerson() {
  const index = at("person").selectedIndex;
  const person = answer.people[index];
  if (!person) {
    rows = [];
    at("verdict").textContent = "No face, no label.";
  } else {
    rows = answer.frames.filter((row) => row.track === person.track && row.label !== null);
    at("verdict").textContent =
      person.label + ", " + Math.round(100 * person.probability) + " % over the whole film";
  }
  at("legend").replaceChildren(...answer.classes.map(legendEntry));
  at("units-part").hidden = answer.action_units.length === 0 || rows.length === 0;
  at("units").style.height = TOP + BOTTOM + UNIT_ROW * answer.action_units.length + "px";
  draw();
}

function legendEntry(name, index) {
  const entry = element("li");
  const space = "http://www.w3.org/2000/svg";
  const mark = document.createElementNS(space, "svg");
  const box = document.createElementNS(space, "rect");
  for (const [key, value] of [["width", 14], ["height", 8], ["fill", colour(index)]]) {
    box.setAttribute(key, value);
  }
  mark.append(box);
  entry.append(mark, name);
  return entry;
}

function colour(index) { return COLOURS[index % COLOURS.length]; }

// A canvas in device pixels with CSS pixels as its unit.
function prepared(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  return { pen, width, height };
}

function xOf(time, width) {
  return LEFT + (width - LEFT - RIGHT) * time / Math.max(answer.duration_s, 1e-3);
}

function drawTimes(pen, width, height) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120].find(
    (seconds) => answer.duration_s / seconds <= 10) || 300;
  pen.fillStyle = "#666";
  pen.textAlign = "center";
  for (let time = 0; time <= answer.duration_s; time += step) {
    pen.fillText(time.toFixed(step < 1 ? 1 : 0) + " s", xOf(time, width), height - BOTTOM / 2);
  }
}

// Where nothing is known of this person, a line breaks off.
function drawLine(pen, name, yOf, width) {
  const gap = 2.5 * answer.duration_s / Math.max(answer.frames.length, 1) + 0.1;
  pen.beginPath();
  let last = -Infinity;
  for (const row of rows) {
    const x = xOf(row.time_s, width), y = yOf(row[name]);
    if (row.time_s - last > gap) pen.moveTo(x, y); else pen.lineTo(x, y);
    last = row.time_s;
  }
  pen.stroke();
}

function drawClasses() {
  const { pen, width, height } = prepared(at("classes"));
  const yOf = (share) => TOP + (height - TOP - BOTTOM) * (1 - share);
  pen.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    pen.fillStyle = "#666";
    pen.fillText(100 * share + " %", LEFT - 6, yOf(share));
    pen.fillStyle = "#e4e4e4";
    pen.fillRect(LEFT, yOf(share), width - LEFT - RIGHT, 1);
  }
  drawTimes(pen, width, height);
  pen.lineWidth = 2;
  answer.classes.forEach((name, index) => {
    pen.strokeStyle = colour(index);
    drawLine(pen, "p_" + name, yOf, width);
  });
  drawCursor(pen, width, height);
}

// A row a unit; the darker, the more probable.
function drawUnits() {
  if (at("units-part").hidden) return;
  const { pen, width, height } = prepared(at("units"));
  answer.action_units.forEach((name, index) => {
    const y = TOP + index * UNIT_ROW;
    pen.fillStyle = "#666";
    pen.textAlign = "right";
    pen.fillText(name, LEFT - 6, y + UNIT_ROW / 2);
    rows.forEach((row, number) => {
      if (row[name] === null) return;
      const end = number + 1 < rows.length ? rows[number + 1].time_s : answer.duration_s;
      // Whole pixels: seams would show between half ones.
      const x = Math.floor(xOf(row.time_s, width));
      pen.fillStyle = "rgba(0, 114, 178, " + row[name].toFixed(3) + ")";
      pen.fillRect(x, y + 2, Math.floor(xOf(end, width)) - x, UNIT_ROW - 4);
    });
  });
  drawTimes(pen, width, height);
  drawCursor(pen, width, height);
}

function drawCursor(pen, width, height) {
  const time = Math.min(film.currentTime, answer.duration_s);
  pen.fillStyle = "#c62828";
  pen.fillRect(xOf(time, width) - 0.75, TOP, 1.5, height - TOP - BOTTOM);
}

// What stands at the cursor: the last frame that is not after it.
function tellNow() {
  let found = rows[0];
  for (const row of rows) {
    if (row.time_s > film.currentTime + 1e-3) break;
    found = row;
  }
  const lines = !found ? [] : answer.classes.map((name) => {
    const share = found["p_" + name];
    const line = element("tr");
    const cell = element("td");
    cell.append(element("meter", undefined, { value: share, min: 0, max: 1 }));
    line.append(element("td", name), element("td", Math.round(100 * share) + " %"), cell);
    return line;
  });
  at("now").replaceChildren(...lines);
}

function draw() {
  if (answer === null) return;
  drawClasses();
  drawUnits();
  tellNow();
}

let lastDrawn = -1;
function follow() {
  if (answer !== null && film.currentTime !== lastDrawn) {
    lastDrawn = film.currentTime;
    document.body.dataset.cursorS = lastDrawn.toFixed(3);
    draw();
  }
  requestAnimationFrame(follow);
}

function jump(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
  film.currentTime = Math.min(Math.max(share, 0), 1) * answer.duration_s;
}

at("file").addEventListener("change", () => {
  if (at("file").files.length) send(at("file").files[0]);
  at("file").value = "";
});
at("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") at("file").click();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  // Anywhere on the page: a browser would otherwise leave it to play the file.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
at("cancel").addEventListener("click", () => { if (request) request.abort(); });
at("person").addEventListener("change", choosePerson);
at("classes").addEventListener("click", jump);
at("units").addEventListener("click", jump);
film.addEventListener("error", () => { at("unplayable").hidden = false; });
window.addEventListener("resize", draw);
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("mien-token", at("token").value);
  tellModel();
});
tellModel();
follow();
