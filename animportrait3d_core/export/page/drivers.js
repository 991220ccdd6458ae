// What moves the rig: numbers of sliders, clips and ARKit's shapes -> pose vectors.
// A pose vector: expression [E], global_orient, neck, head, jaw, left eye, right eye (3 each, axis-angle in radians),
// lids left and right, translation [3], scale.
"use strict";
(function (root) {
  const RADIANS = Math.PI / 180, NECK_SHARE = 0.4;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  // Unit quaternions wxyz and axis-angle vectors.
  function fromVector(v) {
    const angle = Math.hypot(...v), s = angle > 1e-9 ? Math.sin(angle / 2) / angle : 0.5;
    return [Math.cos(angle / 2), s * v[0], s * v[1], s * v[2]];
  }

  function toVector([w, x, y, z]) {
    const sign = w < 0 ? -1 : 1, s = Math.hypot(x, y, z), factor = sign * (s > 1e-9 ? (2 * Math.atan2(s, sign * w)) / s : 2);
    return [factor * x, factor * y, factor * z];
  }

  function times([a, b, c, d], [e, f, g, h]) {
    return [a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g, a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e];
  }
  const inverse = ([w, x, y, z]) => [w, -x, -y, -z];
  const rotate = (q, v) => times(times(q, [0, ...v]), inverse(q)).slice(1);
  const at = (header, name) => header.expressions + { neck: 3, head: 6, jaw: 9, leftEye: 12, rightEye: 15, lids: 18 }[name];
  // Turns one joint by an axis-angle vector after the turn that it has.
  function turnJoint(pose, offset, turn) {
    const turned = toVector(times(fromVector(turn), fromVector(pose.slice(offset, offset + 3))));
    for (let k = 0; k < 3; k++) pose[offset + k] = turned[k];
  }

  // Turns the head by an axis-angle vector about the body's axes; the neck takes its share.
  function turnHead(header, pose, turn) {
    const n = at(header, "neck"), h = at(header, "head");
    const neck = fromVector(pose.slice(n, n + 3)), head = fromVector(pose.slice(h, h + 3));
    const newNeck = times(fromVector(turn.map((value) => NECK_SHARE * value)), neck);
    const newHead = times(inverse(newNeck), times(fromVector(turn), times(neck, head)));
    pose.set(toVector(newNeck), n);
    pose.set(toVector(newHead), h);
  }

  // Closes lids by a share of what they are open, or opens them wider for a share below zero.
  function moveLid(header, pose, side, amount) {
    const i = at(header, "lids") + side;
    pose[i] += amount > 0 ? amount * (1 - pose[i]) : amount;
  }
  const zeros = { jaw: 0, gazeLeft: 0, gazeUp: 0, lidLeft: 0, lidRight: 0, turn: 0, nod: 0, tilt: 0 };
  const neutralSliders = (header) => ({ ...zeros, expression: new Array(header.expressions).fill(0) });
  // The pose `from` with sliders on top: jaw, gaze and head in degrees, lids in 0..1, expressions in coefficients.
  function withSliders(header, from, sliders) {
    const pose = Float32Array.from(from);
    sliders.expression.forEach((amount, e) => { pose[e] += amount; });
    turnJoint(pose, at(header, "jaw"), [sliders.jaw * RADIANS, 0, 0]);
    const gaze = [-sliders.gazeUp * RADIANS, sliders.gazeLeft * RADIANS, 0];
    turnJoint(pose, at(header, "leftEye"), gaze);
    turnJoint(pose, at(header, "rightEye"), gaze);
    moveLid(header, pose, 0, sliders.lidLeft);
    moveLid(header, pose, 1, sliders.lidRight);
    turnHead(header, pose, [-sliders.nod * RADIANS, sliders.turn * RADIANS, -sliders.tilt * RADIANS]);
    return pose;
  }

  // Degrees to the subject's left and up by which eyes in the head of `pose` look from `eyes` to a place in the world.
  function gazeTowards(header, pose, eyes, place) {
    const joint = (offset) => fromVector(pose.slice(offset, offset + 3));
    const head = times(joint(header.expressions), times(joint(at(header, "neck")), joint(at(header, "head"))));
    const [x, y, z] = rotate(inverse(head), place.map((value, k) => value - eyes[k]));
    return [clamp(Math.atan2(x, z) / RADIANS, -28, 28), clamp(Math.atan2(y, Math.hypot(x, z)) / RADIANS, -18, 18)];
  }

  // Pose [E + 24] of 52 strengths on top of the rest pose with open eyes; map: [52, E + 8] of expression, jaw (down, left), gaze (left,
  // up of the left eye and of the right one), lids; all in radians (animation/arkit/pose.py).
  function arkitPose(header, map, strengths) {
    const E = header.expressions, columns = E + 8, sums = new Float64Array(columns), pose = Float32Array.from(header.awake);
    strengths.forEach((strength, row) => { for (let c = 0; c < columns; c++) sums[c] += strength * map[row * columns + c]; });
    for (let e = 0; e < E; e++) pose[e] += sums[e];
    turnJoint(pose, at(header, "jaw"), [sums[E], sums[E + 1], 0]);
    turnJoint(pose, at(header, "leftEye"), [-sums[E + 3], sums[E + 2], 0]);
    turnJoint(pose, at(header, "rightEye"), [-sums[E + 5], sums[E + 4], 0]);
    for (const side of [0, 1]) moveLid(header, pose, side, clamp(sums[E + 6 + side], -0.5, 1));
    return pose;
  }

  // The pose of a clip at a time, between its frames; past its end it begins again.
  function clipPose(header, clip, time) {
    const width = header.rest.length, place = (time * clip.fps) % clip.frames, first = Math.floor(place), share = place - first;
    const next = Math.min(first + 1, clip.frames - 1), pose = new Float32Array(width);
    for (let k = 0; k < width; k++) pose[k] = (1 - share) * clip.values[first * width + k] + share * clip.values[next * width + k];
    return pose;
  }

  // The turn of a head by pitch about x, yaw about y and roll about z.
  const headTurn = (pitch, yaw, roll) => toVector(times(fromVector([0, yaw, 0]), times(fromVector([pitch, 0, 0]), fromVector([0, 0, roll]))));
  // How far closed the lids are at a time: blinks of 0.2 s, 3 to 5 s apart.
  function blink(time) {
    const period = Math.floor(time / 4), start = 4 * period + 1 + Math.abs(Math.sin(12.9898 * period) * 43758.5453) % 1;
    const share = (time - start) / 0.2;
    return share > 0 && share < 1 ? Math.sin(Math.PI * share) ** 2 : 0;
  }
  root.drivers = { neutralSliders, withSliders, moveLid, gazeTowards, headTurn, turnHead, arkitPose, clipPose, blink, clamp };
})((globalThis.AP3D = globalThis.AP3D || {}));
