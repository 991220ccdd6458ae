// The page around the view: panel, clips, files dropped onto it, pictures and films.
"use strict";
(function (root) {
  const { neutralSliders, withSliders, moveLid, gazeTowards, arkitClip, textOf, clipPose, blink } = root.drivers;

  const frameOf = ({ clip, time }) => (clip ? Math.round(time * clip.fps) % clip.frames : 0);

  function element(kind, attributes, ...children) {
    const made = Object.assign(document.createElement(kind), attributes);
    made.append(...children);
    return made;
  }

  function tell(text, isError) {
    const note = Object.assign(document.getElementById("note"), { textContent: text, hidden: !text });
    note.classList.toggle("error", Boolean(isError));
  }
  // A row of the panel; `get` and `set` reach what it moves, `row.show` tells it of other hands.
  function slider(name, low, high, step, get, set) {
    const input = element("input", { type: "range", min: low, max: high, step, ariaLabel: name }), value = element("output", {});
    input.addEventListener("input", () => { value.textContent = input.value; set(Number(input.value)); });
    input.dataset.name = name;
    const show = () => { input.value = get(); value.textContent = input.value; }, row = element("label", {}, element("span", {}, name), input, value);
    show();
    return Object.assign(row, { show });
  }

  function box(name, checked, set) {
    const input = element("input", { type: "checkbox", checked, onchange: () => set(input.checked) });
    return element("label", { className: "box" }, input, name);
  }

  function save(blob, name) {
    const url = URL.createObjectURL(blob), link = element("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  // Sliders of `state.sliders`; the first ten expressions, which are the strongest.
  function sliders(header, state) {
    const set = (where, keys) => (value) => { for (const key of keys) where()[key] = value; state.changed = true; };
    const of = (name, low, high, step, where, ...keys) => slider(name, low, high, step, () => where()[keys[0]], set(where, keys));
    const row = (name, low, high, step, ...keys) => of(name, low, high, step, () => state.sliders, ...keys);
    const expression = (e) => of(`Expression ${e + 1}`, -3, 3, 0.05, () => state.sliders.expression, e);
    return [
      row("Jaw", 0, 30, 0.5, "jaw"), row("Lids", Math.min(-0.5, ...header.rest.slice(-6, -4).map((lid) => -lid)), 1, 0.01, "lidLeft", "lidRight"),
      row("Gaze left", -28, 28, 0.5, "gazeLeft"), row("Gaze up", -18, 18, 0.5, "gazeUp"),
      row("Head left", -60, 60, 1, "turn"), row("Head up", -30, 30, 1, "nod"), row("Head tilt", -30, 30, 1, "tilt"),
      ...Array.from({ length: Math.min(10, header.expressions) }, (_, e) => expression(e)),
    ];
  }
  // The clip's frame: it moves while the clip plays, and stops it when it is moved.
  function frames(state) {
    const row = slider("Frame", 0, 0, 1, () => frameOf(state), (value) => { state.time = value / state.clip.fps; state.play(false); });
    const { show } = row, input = row.querySelector("input");
    row.show = () => { row.hidden = !state.clip; input.max = state.clip ? state.clip.frames - 1 : 0; show(); };
    return row;
  }

  function record(view, button) {
    const types = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
    const type = globalThis.MediaRecorder && types.find((each) => MediaRecorder.isTypeSupported(each));
    if (!type || !view.canvas.captureStream) { tell("This browser cannot record a canvas.", true); return null; }
    const parts = [], recorder = new MediaRecorder(view.canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
    const kilobytes = () => Math.round(parts.reduce((sum, part) => sum + part.size, 0) / 1000);
    recorder.ondataavailable = (event) => { parts.push(event.data); button.textContent = `Stop (${kilobytes()} kB)`; };
    recorder.onstop = () => {
      [button.textContent, root.lastRecording] = ["Record", new Blob(parts, { type })];
      save(root.lastRecording, `avatar.${type.startsWith("video/mp4") ? "mp4" : "webm"}`);
    };
    recorder.start(500);
    button.textContent = "Stop";
    return recorder;
  }

  function panel(view, state) {
    const { header } = view, side = document.getElementById("panel"), toggle = document.getElementById("toggle"), clips = element("select", { ariaLabel: "Clip" });
    const option = (clip, index) => clips.append(element("option", { value: index }, `${clip.name} (${(clip.frames / clip.fps).toFixed(1)} s)`));
    clips.append(element("option", { value: -1 }, "No clip"));
    view.clips.forEach(option);
    state.addClip = (clip) => {
      option(clip, view.clips.length);
      clips.value = view.clips.push(clip) - 1;
      clips.dispatchEvent(new Event("change"));
    };
    clips.addEventListener("change", () => { Object.assign(state, { clip: view.clips[clips.value] || null, time: 0, changed: true }); rows[0].show(); });
    const play = element("button", {}, state.playing ? "Pause" : "Play"), shot = element("button", {}, "Screenshot"), film = element("button", {}, "Record"), reset = element("button", {}, "Reset");
    const rows = [frames(state), ...sliders(header, state)];
    state.play = (on) => {
      if (!on && state.clip) state.time = frameOf(state) / state.clip.fps;
      Object.assign(state, { playing: on, changed: true });
      play.textContent = on ? "Pause" : "Play";
    };
    state.moved = rows[0].show;
    // After something else than the panel has changed the state.
    state.show = () => { clips.value = view.clips.indexOf(state.clip); for (const row of rows) row.show(); state.changed = true; };
    play.addEventListener("click", () => state.play(!state.playing));
    shot.addEventListener("click", async () => save(await view.snapshot(), "avatar.png"));
    film.addEventListener("click", () => { state.recorder = state.recorder ? (state.recorder.stop(), null) : record(view, film); });
    reset.addEventListener("click", () => { state.sliders = neutralSliders(header); view.resetCamera(); state.show(); });
    const file = element("input", { type: "file", accept: ".csv", hidden: true }), open = element("button", {}, "Open CSV");
    open.addEventListener("click", () => { file.value = ""; file.click(); });
    file.addEventListener("change", () => readClip(view, state, file.files[0]));
    const color = element("input", { type: "color", value: "#ffffff", ariaLabel: "Background" });
    color.addEventListener("input", () => {
      view.background = [1, 3, 5].map((k) => parseInt(color.value.slice(k, k + 2), 16) / 255).concat(1);
      view.invalidate();
    });
    side.append(
      element("div", { className: "line" }, clips, play), element("div", { className: "line" }, shot, film, reset, ...(view.arkit ? [open] : []), color, file),
      box("Gaze follows the pointer", state.follow, (on) => { state.follow = on; state.changed = true; }),
      box("Blink", state.blinks, (on) => { state.blinks = on; state.changed = true; }), ...rows,
    );
    state.unfold = (on) => { side.hidden = !on; document.body.classList.toggle("open", on); };
    toggle.addEventListener("click", () => state.unfold(side.hidden));
    state.unfold(innerWidth >= 700);
    state.show();
  }

  async function readClip(view, state, file) {
    if (!file) return;
    try { state.addClip(arkitClip(view.header, view.arkit, file.name, await textOf(file))); tell(""); } catch (error) { tell(error.message, true); }
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
    if (moves) state.moved();
    const from = state.clip ? clipPose(header, state.clip, state.time) : header.rest, set = { ...state.sliders };
    if (state.follow && view.pointer) {
      [set.gazeLeft, set.gazeUp] = gazeTowards(header, withSliders(header, from, set), header.eyes, view.under(view.pointer));
    }
    state.shown = set; // without the blink, which passes
    view.pose = withSliders(header, from, set);
    for (const side of [0, 1]) moveLid(header, view.pose, side, close);
    return true;
  }

  root.startPage = async function () {
    const header = JSON.parse(document.getElementById("header").textContent), canvas = document.getElementById("canvas");
    try {
      if (!document.createElement("canvas").getContext("webgl2")) root.createRenderer(document.createElement("canvas"), header, null);
      const view = await root.createView(canvas, header, document.getElementById("data").textContent);
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches; // nothing moves by itself then
      const state = { sliders: neutralSliders(header), clip: null, time: 0, playing: !calm, follow: true, blinks: !calm, changed: false, closed: 0, pointer: null };
      root.view = view;
      root.state = state;
      view.onerror = (error) => tell(error.message, true);
      view.onframe = (now) => drive(view, state, now);
      addEventListener("pointermove", (event) => { view.pointer = [event.clientX, event.clientY]; });
      panel(view, state);
      addEventListener("dragover", (event) => event.preventDefault());
      addEventListener("drop", (event) => { event.preventDefault(); readClip(view, state, event.dataTransfer.files[0]); });
      if (root.attach) root.attach(view, state, frameOf);
      tell("");
      root.openedAfter = performance.now();
      document.body.dataset.state = "ready";
    } catch (error) {
      document.body.dataset.state = "failed";
      tell(error.message, true);
    }
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
