// The rig: file arrays -> posed vertices -> triangle frames -> depth order. Runs in a worker and knows no page.
// `makeRig` and everything in it is sent to the worker as text: it may use nothing from outside.
"use strict";
(function (root) {
  root.makeRig = function (header, base64) {
    const JOINTS = 55, NECK = 12, HEAD = 15, JAW = 22, LEFT_EYE = 23, RIGHT_EYE = 24, SHORT = 1e-9;
    const KINDS = {
      f32: Float32Array, u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i8: Int8Array, i16: Int16Array, f16: Uint16Array,
    };

    function bytes(text) {
      if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
      const raw = atob(text), out = new Uint8Array(raw.length);
      for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
      return out.buffer;
    }

    // All half floats by their bits: sign, 5 bits of exponent, 10 of fraction.
    function halfTable() {
      const table = new Float32Array(65536);
      for (let bits = 0; bits < 65536; bits++) {
        const exponent = (bits >> 10) & 31, fraction = bits & 1023;
        const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14;
        table[bits] = bits & 32768 ? -size : size;
      }
      return table;
    }

    function decode(buffer) {
      const half = halfTable(), arrays = {};
      for (const [name, spec] of Object.entries(header.arrays)) {
        const count = spec.shape.reduce((a, b) => a * b, 1), raw = new KINDS[spec.kind](buffer, spec.offset, count);
        if (spec.kind !== "f16" && !spec.scale) { arrays[name] = raw; continue; }
        const values = (arrays[name] = new Float32Array(count)), scale = spec.scale || [1];
        if (spec.kind === "f16") for (let i = 0; i < count; i++) values[i] = half[raw[i]];
        else for (let i = 0, k = 0; i < count; i++) { values[i] = raw[i] * scale[k]; if (++k === scale.length) k = 0; }
      }
      return arrays;
    }

    const arrays = decode(bytes(base64));
    const { vertices: V, expressions: E, faces: F, splats: N, joints: J } = header;
    const vertices = new Float32Array(3 * V), unposed = new Float64Array(3 * V), joints = new Float64Array(3 * JOINTS);
    const turns = new Float64Array(9 * JOINTS), chain = new Float64Array(12 * JOINTS), skin = new Float64Array(12 * J);
    const means = new Float32Array(3 * N), depths = new Float32Array(N), keys = new Uint16Array(N);
    const buckets = new Uint32Array(65537);
    const weights = arrays.weights;

    function rodrigues(x, y, z, at) {
      const angle = Math.hypot(x, y, z);
      const s = angle > 1e-8 ? Math.sin(angle) / angle : 1, c = angle > 1e-8 ? (1 - Math.cos(angle)) / (angle * angle) : 0.5;
      turns.set([
        1 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y,
        c * x * y + s * z, 1 - c * (x * x + z * z), c * y * z - s * x,
        c * x * z - s * y, c * y * z + s * x, 1 - c * (x * x + y * y),
      ], 9 * at);
    }

    function add(target, directions, row, amount) {
      const count = target.length, start = row * count;
      if (amount) for (let i = 0; i < count; i++) target[i] += amount * directions[start + i];
    }

    function rotateJoints(pose) {
      for (let j = 0; j < JOINTS; j++) turns.set([1, 0, 0, 0, 1, 0, 0, 0, 1], 9 * j);
      [0, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE].forEach((joint, k) => rodrigues(...pose.slice(E + 3 * k, E + 3 * k + 3), joint));
      for (const [joint, angle] of Object.entries(header.shoulders)) rodrigues(0, 0, angle, Number(joint));
    }

    // Transforms [R | t] of the joints, from template space: t holds the joint at rest back.
    function followChain() {
      for (let j = 0; j < JOINTS; j++) {
        const parent = header.parents[j], a = 12 * j, p = 12 * parent;
        for (let r = 0; r < 3; r++) {
          if (parent < 0) {
            for (let c = 0; c < 3; c++) chain[a + 4 * r + c] = turns[9 * j + 3 * r + c];
            chain[a + 4 * r + 3] = joints[3 * j + r];
            continue;
          }
          let t = chain[p + 4 * r + 3];
          for (let k = 0; k < 3; k++) t += chain[p + 4 * r + k] * (joints[3 * j + k] - joints[3 * parent + k]);
          chain[a + 4 * r + 3] = t;
          for (let c = 0; c < 3; c++) {
            let sum = 0;
            for (let k = 0; k < 3; k++) sum += chain[p + 4 * r + k] * turns[9 * j + 3 * k + c];
            chain[a + 4 * r + c] = sum;
          }
        }
      }
      header.skinningJoints.forEach((joint, s) => {
        for (let r = 0; r < 3; r++) {
          const a = 12 * joint + 4 * r;
          let t = chain[a + 3];
          for (let c = 0; c < 3; c++) { skin[12 * s + 4 * r + c] = chain[a + c]; t -= chain[a + c] * joints[3 * joint + c]; }
          skin[12 * s + 4 * r + 3] = t;
        }
      });
    }

    function correct() {
      if (!header.correctives) return;
      [NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE].forEach((joint, k) => {
        for (let i = 0; i < 9; i++) add(unposed, arrays.correctives, 9 * k + i, turns[9 * joint + i] - (i % 4 === 0 ? 1 : 0));
      });
    }

    // Vertices [V, 3] of a pose: expression, global_orient, neck, head, jaw, eyes, lids (2), translation, scale.
    function poseVertices(pose) {
      unposed.set(arrays.template);
      joints.set(arrays.joints);
      for (let e = 0; e < E; e++) { add(unposed, arrays.directions, e, pose[e]); add(joints, arrays.joint_directions, e, pose[e]); }
      if (!header.lidsLast) for (let k = 0; k < 2; k++) add(unposed, arrays.directions, E + k, pose[E + 18 + k]);
      rotateJoints(pose);
      followChain();
      correct();
      const scale = pose[E + 23], m = new Float64Array(12);
      for (let v = 0; v < V; v++) {
        m.fill(0);
        for (let j = 0; j < J; j++) {
          const w = weights[v * J + j];
          if (w) for (let i = 0; i < 12; i++) m[i] += w * skin[12 * j + i];
        }
        const x = unposed[3 * v], y = unposed[3 * v + 1], z = unposed[3 * v + 2];
        for (let r = 0; r < 3; r++) {
          let value = m[4 * r] * x + m[4 * r + 1] * y + m[4 * r + 2] * z + m[4 * r + 3];
          if (header.lidsLast) for (let k = 0; k < 2; k++) value += pose[E + 18 + k] * arrays.directions[((E + k) * V + v) * 3 + r];
          vertices[3 * v + r] = value * scale + pose[E + 20 + r];
        }
      }
    }

    // A triangle's frame: quaternion wxyz, centre, scale (rigging/frames.py), into out[8 f ...].
    function frame(f, out) {
      const [p, q, r] = [0, 1, 2].map((k) => 3 * arrays.faces[3 * f + k]);
      let ax = vertices[q] - vertices[p], ay = vertices[q + 1] - vertices[p + 1], az = vertices[q + 2] - vertices[p + 2];
      const sx = vertices[r] - vertices[p], sy = vertices[r + 1] - vertices[p + 1], sz = vertices[r + 2] - vertices[p + 2];
      let length = Math.hypot(ax, ay, az);
      if (length < SHORT) { ax = 1; ay = az = 0; length = 0; } else { ax /= length; ay /= length; az /= length; }
      let bx = ay * sz - az * sy, by = az * sx - ax * sz, bz = ax * sy - ay * sx, height = Math.hypot(bx, by, bz);
      if (height < SHORT) { // any perpendicular: the cross product with the smallest axis
        const least = Math.min(Math.abs(ax), Math.abs(ay), Math.abs(az));
        const k = [ax, ay, az].findIndex((value) => Math.abs(value) === least);
        [bx, by, bz] = [[0, az, -ay], [-az, 0, ax], [ay, -ax, 0]][k];
        height = Math.hypot(bx, by, bz);
      }
      bx /= height; by /= height; bz /= height;
      const cx = ay * bz - az * by, cy = az * bx - ax * bz, cz = ax * by - ay * bx; // a0 x a1 = -(a1 x a0)
      const o = 8 * f;
      quaternion(ax, bx, cx, ay, by, cy, az, bz, cz, out, o);
      for (let k = 0; k < 3; k++) out[o + 4 + k] = (vertices[p + k] + vertices[q + k] + vertices[r + k]) / 3;
      out[o + 7] = Math.max(0.5 * (length + Math.abs(cx * sx + cy * sy + cz * sz)), SHORT);
    }

    function quaternion(a, b, c, d, e, f, g, h, i, out, o) {
      const ww = 1 + a + e + i, xx = 1 + a - e - i, yy = 1 - a + e - i, zz = 1 - a - e + i, most = Math.max(ww, xx, yy, zz);
      const raw = most === ww ? [ww, h - f, c - g, d - b] : most === xx ? [h - f, xx, d + b, c + g]
        : most === yy ? [c - g, d + b, yy, h + f] : [d - b, c + g, h + f, zz];
      const length = Math.hypot(raw[0], raw[1], raw[2], raw[3]);
      for (let k = 0; k < 4; k++) out[o + k] = raw[k] / length;
    }

    function placeMeans(frames) {
      const local = arrays.means, binding = arrays.binding;
      for (let n = 0; n < N; n++) {
        const o = 8 * binding[n], w = frames[o], x = frames[o + 1], y = frames[o + 2], z = frames[o + 3], k = frames[o + 7];
        const lx = local[3 * n], ly = local[3 * n + 1], lz = local[3 * n + 2];
        const tx = 2 * (y * lz - z * ly), ty = 2 * (z * lx - x * lz), tz = 2 * (x * ly - y * lx);
        means[3 * n] = k * (lx + w * tx + y * tz - z * ty) + frames[o + 4];
        means[3 * n + 1] = k * (ly + w * ty + z * tx - x * tz) + frames[o + 5];
        means[3 * n + 2] = k * (lz + w * tz + x * ty - y * tx) + frames[o + 6];
      }
    }

    // Splats from far to near along `row` (x, y, z, offset: depth of a point), by a counting sort of 16 bits.
    function sort(row, order) {
      let low = Infinity, high = -Infinity;
      for (let n = 0; n < N; n++) {
        const depth = row[0] * means[3 * n] + row[1] * means[3 * n + 1] + row[2] * means[3 * n + 2] + row[3];
        depths[n] = depth;
        if (depth < low) low = depth;
        if (depth > high) high = depth;
      }
      const factor = 65535 / Math.max(high - low, 1e-9);
      buckets.fill(0);
      for (let n = 0; n < N; n++) { keys[n] = (high - depths[n]) * factor; buckets[keys[n] + 1]++; }
      for (let b = 0; b < 65536; b++) buckets[b + 1] += buckets[b];
      for (let n = 0; n < N; n++) order[buckets[keys[n]]++] = n;
    }

    // What the renderer keeps of the splats: 4 + coefficients texels of four floats each.
    function texels() {
      const rest = header.coefficients - 1, stride = 4 + rest, out = new Float32Array(4 * stride * N);
      for (let n = 0; n < N; n++) {
        const o = 4 * stride * n;
        for (let k = 0; k < 3; k++) {
          out[o + k] = arrays.means[3 * n + k];
          out[o + 8 + k] = Math.exp(arrays.log_scales[3 * n + k]);
          out[o + 12 + k] = arrays.sh0[3 * n + k];
          for (let c = 0; c < rest; c++) out[o + 16 + 4 * c + k] = arrays.sh[3 * (rest * n + c) + k];
        }
        out[o + 3] = arrays.binding[n];
        for (let k = 0; k < 4; k++) out[o + 4 + k] = arrays.quats[4 * n + k];
        out[o + 11] = arrays.opacities[n];
      }
      return out;
    }

    function placed(pose) {
      const frames = new Float32Array(8 * F);
      poseVertices(pose);
      for (let f = 0; f < F; f++) frame(f, frames);
      placeMeans(frames);
      return frames;
    }

    const clips = header.clips.map((clip) => ({ ...clip, values: arrays[clip.values] }));
    return { placed, sort, texels, means, vertices, clips, arkit: arrays.arkit || null };
  };

  // The worker's side of the talk: one answer per request, in order.
  root.serveRig = function (makeRig) {
    let rig = null, last = "";
    self.onmessage = (event) => {
      const ask = event.data;
      if (ask.header) {
        rig = makeRig(ask.header, ask.base64);
        const restFrames = rig.placed(ask.header.rest);
        self.postMessage({ texels: rig.texels(), restFrames, clips: rig.clips, arkit: rig.arkit });
      } else if (ask.means) {
        self.postMessage({ means: rig.means.slice(), vertices: rig.vertices.slice() });
      } else {
        const key = ask.pose.join(), order = new Uint32Array(rig.means.length / 3);
        const frames = key === last ? null : rig.placed(ask.pose);
        last = key;
        rig.sort(ask.row, order);
        self.postMessage({ frames, order }, frames ? [frames.buffer, order.buffer] : [order.buffer]);
      }
    };
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
