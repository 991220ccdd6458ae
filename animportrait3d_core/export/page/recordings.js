// Tables of a face's shapes (CSV of Live Link Face, MediaPipe ...) -> clips, as animation/files/live_link.py and timing.py read them.
"use strict";
(function (root) {
  const { arkitPose, headTurn, turnHead } = root.drivers, RATES = [10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240];
  const TIME = /^(media)?(time|timestamp|t|seconds|milliseconds)(s|sec|seconds|ms|milliseconds|us|ns)?$/;
  // EyeBlinkLeft, eye_blink_left and eyeBlink_L are all eyeblinkleft.
  const plain = (name) => name.trim().replace(/_L$/, "left").replace(/_R$/, "right").toLowerCase().replace(/[^a-z0-9]/g, "");
  const numeric = (cell) => (cell?.trim() ? Number(cell.replace(",", ".")) : NaN), median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
  // Text of a file: spreadsheets write "Unicode text" in 16 bits.
  async function textOf(file) {
    const bytes = new Uint8Array(await file.arrayBuffer()), mark = bytes[0] * 256 + bytes[1];
    return new TextDecoder(mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "utf-8").decode(bytes);
  }

  // Rows of cells, between which stands what the first line has most of; quotes hold a cell together.
  function table(text) {
    const header = text.trimStart().split("\n", 1)[0], mark = [",", ";", "\t"].reduce((best, each) => (header.split(each).length > header.split(best).length ? each : best));
    const cell = new RegExp(`(?:^|${mark})(?:\\s*"((?:[^"]|"")*)"[^${mark}]*|([^${mark}]*))`, "g");
    return text.split(/\r?\n/).filter((line) => line.trim()).map((line) => Array.from((line.startsWith(mark) ? `""${line}` : line).matchAll(cell), ([, quoted, bare]) => quoted ?? bare));
  }

  // Frame numbers of rows whose times are counted in frames; null where they jump or run back.
  function numbered(counts) {
    let last = -1;
    const sum = (wave) => counts.reduce((total, count) => total + wave(2 * Math.PI * count), 0), usual = Math.atan2(sum(Math.sin), sum(Math.cos)) / (2 * Math.PI);
    const numbers = counts.map((count) => Math.floor(count - usual + 0.5)), jumps = numbers.some((number, k) => k && !(number >= numbers[k - 1] && number <= numbers[k - 1] + 60));
    return jumps ? null : numbers.map((number) => (last = Math.max(last + 1, number - numbers[0])));
  }

  // By time codes HH:MM:SS:frame; nothing where a row has none.
  function byCodes(cells) {
    const codes = cells.map((cell) => /^\s*(\d+):(\d+):(\d+)[:;](\d+(?:[.,]\d+)?)\s*$/.exec(cell || "")), perSecond = new Map();
    if (!codes.every(Boolean)) return null;
    let days = 0;
    const seconds = codes.map(([, h, m, s]) => 3600 * h + 60 * m + Number(s)).map((t, k, all) => t + (days += k && t < all[k - 1] - 43200 ? 86400 : 0));
    const numbers = codes.map((code) => numeric(code[4])), rate = RATES.find((each) => numbers.every((number) => number < each));
    const base = rate && (seconds[seconds.length - 1] - seconds[0] >= 1 || rate > 60) ? rate : 60;
    for (const second of seconds) perSecond.set(second, (perSecond.get(second) || 0) + 1);
    const rows = Math.max(1, Math.round((median([...perSecond.values()].slice(1, -1)) || 0) / base)); // that share a number
    return { fps: rows * base, places: numbered(seconds.map((second, k) => rows * (second * base + numbers[k]))) };
  }

  // By times in seconds or thousandths, millionths, billionths of them; nothing where they are of no use.
  function byTimes(times) {
    const step = median(times.slice(1).map((time, k) => time - times[k])), unit = times.every(Number.isFinite) && [1, 1e3, 1e6, 1e9].find((each) => each / step >= 4 && each / step <= 300);
    if (!unit) return null;
    const found = unit / step, near = RATES.reduce((best, rate) => (Math.abs(rate - found) < Math.abs(best - found) ? rate : best));
    const fps = Math.abs(near / found - 1) < 0.03 ? near : Math.round(100 * found) / 100;
    return { fps, places: numbered(times.map((time) => ((time - times[0]) / unit) * fps)) };
  }

  // A clip of a table: a header of shape names, one row per frame. Frames that were dropped, and rows without a face, are on
  // straight lines between their neighbours.
  function arkitClip(header, map, name, text) {
    const refuse = (words) => { throw new Error(words); }, most = (limit) => `is no number of at most ${limit.toFixed(1)}; shapes go from 0 to 1, head rotations are radians.`;
    if (!map) refuse("This page was exported without an ARKit map, so that it cannot follow recordings of a face.");
    const rows = table(text), names = (rows.shift() || []).map(plain), columns = header.shapes.map((shape) => names.indexOf(shape)), given = columns.filter((column) => column >= 0);
    const seen = rows.map((row) => given.some((column) => row[column]?.trim())), twice = header.shapes.find((shape) => names.indexOf(shape) !== names.lastIndexOf(shape));
    if (!seen.includes(true)) refuse(`'${name}' names ${given.length} of the 52 ARKit shapes in its first line and has ${rows.length} frames; expected a CSV of Live Link Face or MediaPipe.`);
    if (twice) refuse(`'${name}' has more than one column of ${twice}; take out what is not meant.`);
    const number = (row, column, frame, limit) => {
      const value = column < 0 ? 0 : numeric(row[column]);
      return Math.abs(value) <= limit ? value : refuse(`'${name}', frame ${frame}: '${row[column].slice(0, 20)}' ${most(limit)}`);
    };
    const head = ["headpitch", "headyaw", "headroll"].map((axis) => names.indexOf(axis)), width = header.rest.length, cells = (column) => rows.map((row) => row[column]);
    const time = names.findIndex((each) => TIME.test(each)), timing = byCodes(cells(names.indexOf("timecode"))) || (time >= 0 && byTimes(cells(time).map(numeric))) || { fps: 60 };
    const places = timing.places || rows.map((_, k) => k), frames = places[rows.length - 1] + 1, values = new Float32Array(frames * width);
    let before = -1; // the last frame that is known
    rows.forEach((row, k) => {
      if (!seen[k]) return;
      const why = row.length > names.length ? "if its decimals have commas, save it with semicolons between the columns" : "the file is cut short or damaged";
      if (row.length !== names.length) refuse(`'${name}', frame ${k}: ${row.length} columns, the header has ${names.length}; ${why}.`);
      const pose = arkitPose(header, map, columns.map((column) => number(row, column, k, 10)));
      turnHead(header, pose, headTurn(...head.map((column) => number(row, column, k, 2 * Math.PI))));
      for (let frame = before + 1; frame <= places[k]; frame++) {
        const share = before < 0 ? 1 : (frame - before) / (places[k] - before), start = before * width;
        for (let i = 0; i < width; i++) values[frame * width + i] = share < 1 ? (1 - share) * values[start + i] + share * pose[i] : pose[i];
      }
      before = places[k];
    });
    for (let frame = before + 1; frame < frames; frame++) values.copyWithin(frame * width, before * width, (before + 1) * width);
    return { name, fps: timing.fps, frames, values };
  }
  Object.assign(root.drivers, { arkitClip, textOf });
})((globalThis.AP3D = globalThis.AP3D || {}));
