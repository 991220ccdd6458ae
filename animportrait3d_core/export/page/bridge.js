// The page as the widget of a node: the pose and the camera that its user chooses go to the node, the node's own come here.
// The other side is web/preview_avatar.js, the numbers' meaning animation/viewer.py. Exported pages are without this file.
"use strict";
(function (root) {
  const EVERY = 100; // milliseconds between two looks at what was chosen
  const home = new URL(document.baseURI).origin; // a page in `srcdoc` has its maker's
  const rounded = (value) => Number(value.toFixed(4));
  let port = null, node = null, page = null, told = "";

  // What stands in the node's widgets: sliders that are moved, and the frame of the node's motion.
  function chosenPose({ view, state, frameOf }) {
    const { expression, ...rest } = state.shown || state.sliders, found = {};
    for (const [name, value] of Object.entries(rest)) if (rounded(value)) found[name] = rounded(value);
    const last = expression.findLastIndex((value) => rounded(value));
    if (last >= 0) found.expression = expression.slice(0, last + 1).map(rounded);
    if (state.clip && state.clip === view.clips[0]) found.frame = state.playing ? page.frame : (page.frame = frameOf(state));
    return found;
  }

  function chosenCamera({ view }) {
    const found = {}, start = view.header.camera;
    for (const name of ["yaw", "elevation", "radius", "fov"]) if (view.orbit[name] !== start[name]) found[name] = rounded(view.orbit[name]);
    if (view.orbit.target.some((value, k) => value !== start.target[k])) found.target = view.orbit.target.map(rounded);
    return found;
  }

  const chosen = () => ({ pose: JSON.stringify(chosenPose(page)), camera: JSON.stringify(chosenCamera(page)) });

  // The largest canvas of the picture's shape beside the panel or above it (page.html), in the middle.
  function shape({ canvas }, { width, height }) {
    const beside = "var(--beside, 0px)", below = "var(--below, 0px)", wide = `(100vw - ${beside})`, high = `(100vh - ${below})`;
    Object.assign(canvas.style, {
      inset: `0 ${beside} ${below} 0`, margin: "auto",
      width: `min(${wide}, ${width / height} * ${high})`, height: `min(${high}, ${height / width} * ${wide})`,
    });
    document.body.style.background = "#777"; // outside of the picture
  }

  // Shows what the node says: {pose, camera, width, height, background}.
  function follow() {
    if (!page || !node) return;
    const { view, state } = page, { frame, expression = [], ...sliders } = node.pose, neutral = root.drivers.neutralSliders(view.header);
    state.sliders = { ...neutral, ...sliders, expression: neutral.expression.map((_, e) => expression[e] || 0) };
    state.clip = frame === undefined ? null : view.clips[0] || null;
    state.shown = null;
    if (state.clip) { page.frame = Math.min(frame, state.clip.frames - 1); state.time = page.frame / state.clip.fps; }
    state.play(false);
    state.show();
    view.resetCamera();
    Object.assign(view.orbit, node.camera);
    view.background = [...node.background, 1];
    shape(view, node);
    told = JSON.stringify(chosen());
  }

  function tell() {
    if (!page || !port || !node) return;
    const found = chosen(), text = JSON.stringify(found);
    if (text === told) return;
    told = text;
    port.postMessage(found);
  }

  addEventListener("message", (event) => {
    const { source, origin, data, ports } = event;
    if (source !== parent || origin !== home || data?.kind !== "ap3d-node" || !ports[0]) return;
    port?.close();
    port = ports[0];
    port.onmessage = (message) => { node = message.data; follow(); };
  });

  root.attach = function (view, state, frameOf) {
    page = { view, state, frameOf, frame: 0 };
    for (const box of document.querySelectorAll("#panel input[type=checkbox]")) if (box.checked) box.click();
    document.querySelector("#panel input[type=color]").hidden = true; // the background is the node's
    state.unfold(false); // the panel would cover the picture
    addEventListener("pagehide", () => view.destroy());
    addEventListener("pointerup", ({ target }) => { if (target.matches("canvas, input[type=range]")) port?.postMessage({ released: true }); });
    setInterval(tell, EVERY);
    follow();
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
