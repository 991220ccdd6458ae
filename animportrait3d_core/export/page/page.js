// The page around the view: panel, clips, files dropped onto it, pictures and films.
"use strict";
(function (root) {
  const { neutralSliders, withSliders, gazeTowards, arkitClip, clipPose, blink } = root.drivers;

  function element(kind, attributes, ...children) {
    const made = Object.assign(document.createElement(kind), attributes);
    made.append(...children);
    return made;
  }

  function tell(text, isError) {
    const note = document.getElementById("note");
    note.textContent = text;
    note.classList.toggle("error", Boolean(isError));
    note.hidden = !text;
  }

  function slider(name, low, high, step, set) {
    const input = element("input", { type: "range", min: low, max: high, step, value: 0, ariaLabel: name }), value = element("output", {}, "0");
    input.addEventListener("input", () => { value.textContent = input.value; set(Number(input.value)); });
    input.dataset.name = name;
    return element("label", {}, element("span", {}, name), input, value);
  }

  function box(name, checked, set) {
    const input = element("input", { type: "checkbox", checked });
    input.addEventListener("change", () => set(input.checked));
    return element("label", { className: "box" }, input, name);
  }

  function save(blob, name) {
    const url = URL.createObjectURL(blob), link = element("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Sliders of `state.sliders`; the first ten expressions, which are the strongest.
  function sliders(header, state) {
    const set = (key) => (value) => { state.sliders[key] = value; state.changed = true; };
    const both = (value) => { state.sliders.lidLeft = state.sliders.lidRight = value; state.changed = true; };
    const rows = [
      slider("Jaw", 0, 30, 0.5, set("jaw")), slider("Lids", -0.5, 1, 0.01, both),
      slider("Gaze left", -28, 28, 0.5, set("gazeLeft")), slider("Gaze up", -18, 18, 0.5, set("gazeUp")),
      slider("Head left", -60, 60, 1, set("turn")), slider("Head up", -30, 30, 1, set("nod")), slider("Head tilt", -30, 30, 1, set("tilt")),
    ];
    for (let e = 0; e < Math.min(10, header.expressions); e++) {
      rows.push(slider(`Expression ${e + 1}`, -3, 3, 0.05, (value) => { state.sliders.expression[e] = value; state.changed = true; }));
    }
    return rows;
  }

  function record(view, button) {
    const types = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
    const type = globalThis.MediaRecorder && types.find((each) => MediaRecorder.isTypeSupported(each));
    if (!type || !view.canvas.captureStream) { tell("This browser cannot record a canvas.", true); return null; }
    const parts = [], recorder = new MediaRecorder(view.canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
    recorder.ondataavailable = (event) => {
      parts.push(event.data);
      button.textContent = `Stop (${Math.round(parts.reduce((sum, part) => sum + part.size, 0) / 1000)} kB)`;
    };
    recorder.onstop = () => {
      button.textContent = "Record";
      root.lastRecording = new Blob(parts, { type });
      save(root.lastRecording, `avatar.${type.startsWith("video/mp4") ? "mp4" : "webm"}`);
    };
    recorder.start(500);
    button.textContent = "Stop";
    return recorder;
  }

  function panel(view, state) {
    const { header } = view, content = element("div", { className: "rows" }), clips = element("select", { ariaLabel: "Clip" });
    state.addClip = (clip) => {
      view.clips.push(clip);
      clips.append(element("option", { value: view.clips.length - 1 }, `${clip.name} (${(clip.frames / clip.fps).toFixed(1)} s)`));
      clips.value = view.clips.length - 1;
      clips.dispatchEvent(new Event("change"));
    };
    clips.append(element("option", { value: -1 }, "No clip"));
    view.clips.forEach((clip, index) => clips.append(element("option", { value: index }, `${clip.name} (${(clip.frames / clip.fps).toFixed(1)} s)`)));
    clips.addEventListener("change", () => { state.clip = view.clips[Number(clips.value)] || null; state.time = 0; state.changed = true; });
    const play = element("button", {}, "Pause"), shot = element("button", {}, "Screenshot"), film = element("button", {}, "Record"), reset = element("button", {}, "Reset");
    play.addEventListener("click", () => { state.playing = !state.playing; play.textContent = state.playing ? "Pause" : "Play"; });
    shot.addEventListener("click", async () => save(await view.snapshot(), "avatar.png"));
    film.addEventListener("click", () => { state.recorder = state.recorder ? (state.recorder.stop(), null) : record(view, film); });
    reset.addEventListener("click", () => {
      state.sliders = neutralSliders(header);
      for (const input of content.querySelectorAll("input[type=range]")) { input.value = 0; input.nextElementSibling.textContent = "0"; }
      view.resetCamera();
      state.changed = true;
    });
    const file = element("input", { type: "file", accept: ".csv", hidden: true }), open = element("button", {}, "Open CSV");
    open.addEventListener("click", () => file.click());
    file.addEventListener("change", () => file.files[0] && readClip(view, state, file.files[0]));
    const color = element("input", { type: "color", value: "#ffffff", ariaLabel: "Background" });
    color.addEventListener("input", () => {
      view.background = [1, 3, 5].map((k) => parseInt(color.value.slice(k, k + 2), 16) / 255).concat(1);
      view.invalidate();
    });
    content.append(
      element("div", { className: "line" }, clips, play), element("div", { className: "line" }, shot, film, reset, ...(view.arkit ? [open] : []), color, file),
      box("Gaze follows the pointer", state.follow, (on) => { state.follow = on; state.changed = true; }),
      box("Blink", state.blinks, (on) => { state.blinks = on; state.changed = true; }), ...sliders(header, state),
    );
    const toggle = document.getElementById("toggle"), side = document.getElementById("panel");
    const show = (on) => { side.hidden = !on; document.body.classList.toggle("open", on); };
    toggle.addEventListener("click", () => show(side.hidden));
    show(innerWidth >= 700);
    side.append(content);
  }

  async function readClip(view, state, file) {
    try {
      state.addClip(arkitClip(view.header, view.arkit, file.name, await file.text()));
      tell("");
    } catch (error) {
      tell(error.message, true);
    }
  }

  function acceptDrops(view, state) {
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) readClip(view, state, file);
    });
  }

  // Sets the view's pose for a moment in seconds; says whether it changed.
  function drive(view, state, now) {
    const { header } = view, passed = Math.min(0.1, now - (state.now || now));
    state.now = now;
    if (state.playing) state.time += passed;
    const moves = state.clip && state.playing, looks = state.follow && view.pointer !== state.pointer;
    const close = state.blinks ? blink(now) : 0;
    if (!moves && !looks && !state.changed && close === state.closed) return false;
    Object.assign(state, { changed: false, closed: close, pointer: view.pointer });
    const from = state.clip ? clipPose(header, state.clip, state.time) : header.rest, set = { ...state.sliders };
    if (close) { set.lidLeft = Math.max(set.lidLeft, close); set.lidRight = Math.max(set.lidRight, close); }
    const pose = withSliders(header, from, set);
    if (state.follow && view.pointer) {
      const [left, up] = gazeTowards(header, pose, header.eyes, view.under(view.pointer));
      view.pose = withSliders(header, pose, { ...neutralSliders(header), gazeLeft: left, gazeUp: up });
    } else view.pose = pose;
    return true;
  }

  root.startPage = async function () {
    const header = JSON.parse(document.getElementById("header").textContent), canvas = document.getElementById("canvas");
    try {
      if (!document.createElement("canvas").getContext("webgl2")) root.createRenderer(document.createElement("canvas"), header, null);
      const view = await root.createView(canvas, header, document.getElementById("data").textContent);
      const state = { sliders: neutralSliders(header), clip: null, time: 0, playing: true, follow: true, blinks: true, changed: false, closed: 0, pointer: null };
      root.view = view;
      root.state = state;
      view.onerror = (error) => tell(error.message, true);
      view.onframe = (now) => drive(view, state, now);
      addEventListener("pointermove", (event) => { view.pointer = [event.clientX, event.clientY]; });
      panel(view, state);
      acceptDrops(view, state);
      tell("");
      root.openedAfter = performance.now();
      document.body.dataset.state = "ready";
    } catch (error) {
      document.body.dataset.state = "failed";
      tell(error.message, true);
    }
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
