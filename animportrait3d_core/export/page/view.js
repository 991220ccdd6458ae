// One avatar on one canvas: camera, worker, drawing. The page's panel and a widget are both written on top of this.
"use strict";
(function (root) {
  const RADIANS = Math.PI / 180;
  const { clamp } = root.drivers;

  const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => a.map((value) => value / Math.hypot(...a));

  // Rows of world_to_camera, OpenCV axes, of a camera around `target` (cameras.py, look_at).
  function orbitRows(orbit) {
    const yaw = orbit.yaw * RADIANS, elevation = orbit.elevation * RADIANS, flat = Math.cos(elevation);
    const away = [Math.sin(yaw) * flat, Math.sin(elevation), Math.cos(yaw) * flat];
    const eye = orbit.target.map((value, k) => value + orbit.radius * away[k]), forward = away.map((value) => -value);
    const right = unit(cross(forward, [0, 1, 0])), down = cross(forward, right);
    return { eye, rows: [right, down, forward].map((axis) => [...axis, -dot(axis, eye)]) };
  }

  function orbitCamera(orbit, width, height) {
    const focal = (0.5 * Math.min(1.5 * width, height)) / Math.tan((orbit.fov / 2) * RADIANS);
    return { ...orbitRows(orbit), pinhole: [focal, focal, width / 2, height / 2] };
  }

  // Mouse and touch: one pointer turns, two (or the right button) move and zoom, the wheel zooms.
  function listen(canvas, view) {
    const pointers = new Map();
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      view.pointer = [event.clientX, event.clientY];
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const before = pointers.size === 2 ? spread() : 0, dx = event.clientX - last[0], dy = event.clientY - last[1], o = view.orbit;
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 1 && !(event.buttons & 2)) {
        o.yaw = (o.yaw - 0.4 * dx) % 360;
        o.elevation = clamp(o.elevation + 0.3 * dy, -80, 80);
      } else {
        const [right, down] = orbitRows(o).rows, step = (o.radius * Math.tan((o.fov / 2) * RADIANS) * 2) / canvas.clientHeight / pointers.size;
        o.target = o.target.map((value, k) => value - step * (dx * right[k] + dy * down[k]));
        if (before) o.radius = clamp((o.radius * before) / Math.max(spread(), 1), 0.5, 10);
      }
      view.invalidate();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      view.orbit.radius = clamp(view.orbit.radius * Math.exp(0.001 * event.deltaY), 0.5, 10);
      view.invalidate();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => view.resetCamera());
  }

  function startWorker() {
    const source = `"use strict";(${root.serveRig})(${root.makeRig});`;
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" })), worker = new Worker(url);
    URL.revokeObjectURL(url);
    const waiting = [];
    worker.onmessage = (event) => waiting.shift().resolve(event.data);
    worker.onerror = (event) => { while (waiting.length) waiting.shift().reject(new Error(event.message)); };
    const ask = (message) => new Promise((resolve, reject) => { waiting.push({ resolve, reject }); worker.postMessage(message); });
    return { ask, end: () => worker.terminate() };
  }

  // createView(canvas, header, base64): resolves to the view when the first picture stands.
  root.createView = async function (canvas, header, base64) {
    const worker = startWorker();
    const assets = await worker.ask({ header, base64 });
    const renderer = root.createRenderer(canvas, header, assets);
    let stale = true, busy = false, ended = false, seen = true, fixed = null, drawn = [];
    const view = {
      canvas, header, clips: assets.clips, arkit: assets.arkit, pose: Float32Array.from(header.rest), background: [1, 1, 1, 1],
      orbit: null, pointer: null, ratio: Math.min(globalThis.devicePixelRatio || 1, 2), onframe: null, onerror: null,
    };

    view.resetCamera = () => { view.orbit = { ...header.camera, target: [...header.camera.target] }; stale = true; };
    view.invalidate = () => { stale = true; };
    view.camera = () => fixed || orbitCamera(view.orbit, canvas.width, canvas.height);

    // Poses, sorts and draws what the view says now.
    async function update() {
      const camera = view.camera(), row = camera.rows[2];
      const { frames, order } = await worker.ask({ pose: Array.from(view.pose), row });
      if (ended) return;
      renderer.update(frames, order);
      renderer.draw(camera, view.background);
    }

    function fit() {
      const width = Math.max(1, Math.round(canvas.clientWidth * view.ratio)), height = Math.max(1, Math.round(canvas.clientHeight * view.ratio));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; stale = true; }
    }

    // A device that cannot keep up draws fewer pixels. The median: while its tab is hidden a page draws nothing.
    function adapt(now) {
      drawn.push(now);
      if (drawn.length < 12 && !(drawn.length > 3 && now - drawn[0] > 3000)) return;
      const gaps = drawn.slice(1).map((time, k) => time - drawn[k]).sort((a, b) => a - b);
      drawn = [];
      if (gaps[gaps.length >> 1] > 60) view.ratio = Math.max(Math.min(0.5, view.ratio), 0.75 * view.ratio);
    }

    async function tick(now) {
      if (ended) return;
      requestAnimationFrame(tick);
      if (busy || fixed || !seen) return;
      busy = true;
      try {
        if (view.onframe && view.onframe(now / 1000)) stale = true;
        fit();
        if (stale) { stale = false; await update(); adapt(performance.now()); } else drawn = [];
      } catch (error) {
        view.destroy();
        if (view.onerror) view.onerror(error);
      }
      busy = false;
    }

    // One picture of a given size, camera and pose, apart from what is on show: RGBA bytes, rows from the top.
    view.picture = async (width, height, camera, pose, background) => {
      fixed = camera;
      while (busy) await new Promise((resolve) => setTimeout(resolve, 5));
      const kept = [view.pose, view.background];
      [view.pose, view.background] = [Float32Array.from(pose), background];
      Object.assign(canvas, { width, height });
      await update();
      const pixels = renderer.pixels();
      [view.pose, view.background] = kept;
      [fixed, stale] = [null, true];
      return pixels;
    };
    view.posed = () => worker.ask({ means: true });
    // Where a pointer's ray meets the plane a little in front of the face, in the world.
    view.under = ([x, y]) => {
      const box = canvas.getBoundingClientRect(), camera = view.camera(), [fx, fy, cx, cy] = camera.pinhole;
      const scale = canvas.width / box.width, u = ((x - box.left) * scale - cx) / fx, v = ((y - box.top) * scale - cy) / fy;
      const [right, down, forward] = camera.rows, along = forward.map((value, k) => (k < 3 ? value + u * right[k] + v * down[k] : 0)).slice(0, 3);
      const depth = Math.max(0.2, dot(minus(header.eyes, camera.eye), forward) - 0.8);
      return camera.eye.map((value, k) => value + depth * along[k]);
    };
    view.snapshot = (type = "image/png") => new Promise((resolve) => canvas.toBlob(resolve, type));
    // Out of sight it rests, also where it lies in a frame of another page.
    const watch = new IntersectionObserver((entries) => { seen = entries[entries.length - 1].isIntersecting; });
    view.destroy = () => { ended = true; worker.end(); watch.disconnect(); renderer.gl.getExtension("WEBGL_lose_context")?.loseContext(); };
    canvas.addEventListener("webglcontextlost", () => {
      if (!ended && view.onerror) view.onerror(new Error("The graphics device was lost; reload the page."));
      view.destroy();
    });

    view.resetCamera();
    listen(canvas, view);
    fit();
    await update();
    stale = false;
    watch.observe(canvas);
    requestAnimationFrame(tick);
    return view;
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
