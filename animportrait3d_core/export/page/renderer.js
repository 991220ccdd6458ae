// The renderer: splats on posed triangles, drawn far to near with the trainer's own 2D kernel (render/scene.py).
"use strict";
(function (root) {
  const WIDTH = 2048; // of the textures: what every WebGL2 device has

  const SPLAT_VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp sampler2D;
in vec2 corner; in uint splat;
uniform sampler2D splats, frames, rests;
uniform vec4 view[3]; // rows of world_to_camera
uniform vec3 eye;
uniform vec4 pinhole; // fx, fy, cx, cy in pixels
uniform vec2 size;
uniform int degree; uniform bool legacy;
flat out vec2 mean; flat out vec3 conic; flat out vec4 color;
const float NEAR = 0.01, BLUR = 0.3, MARGIN = 0.3, MIN_ALPHA = 1.0 / 255.0;

vec4 at(sampler2D source, int i) { return texelFetch(source, ivec2(i & ${WIDTH - 1}, i / ${WIDTH}), 0); }
vec3 turn(vec4 q, vec3 v) { vec3 t = 2.0 * cross(q.yzw, v); return v + q.x * t + cross(q.yzw, t); }
vec4 times(vec4 a, vec4 b) { return vec4(a.x * b.x - dot(a.yzw, b.yzw), a.x * b.yzw + b.x * a.yzw + cross(a.yzw, b.yzw)); }

vec3 shade(int base, vec3 d) {
  vec3 c = 0.28209479177387814 * at(splats, base + 3).rgb;
  int k = base + 4;
  if (degree > 0) c += 0.4886025119029199 * (-d.y * at(splats, k).rgb + d.z * at(splats, k + 1).rgb - d.x * at(splats, k + 2).rgb);
  vec3 s = d * d;
  if (degree > 1) c += 1.0925484305920792 * (d.x * d.y * at(splats, k + 3).rgb - d.y * d.z * at(splats, k + 4).rgb
      - d.x * d.z * at(splats, k + 6).rgb) + 0.31539156525252005 * (2.0 * s.z - s.x - s.y) * at(splats, k + 5).rgb
      + 0.5462742152960396 * (s.x - s.y) * at(splats, k + 7).rgb;
  if (degree > 2) c += -0.5900435899266435 * (d.y * (3.0 * s.x - s.y) * at(splats, k + 8).rgb + d.x * (s.x - 3.0 * s.y) * at(splats, k + 14).rgb)
      + 2.890611442640554 * d.x * d.y * d.z * at(splats, k + 9).rgb
      - 0.4570457994644658 * (4.0 * s.z - s.x - s.y) * (d.y * at(splats, k + 10).rgb + d.x * at(splats, k + 12).rgb)
      + 0.3731763325901154 * d.z * (2.0 * s.z - 3.0 * s.x - 3.0 * s.y) * at(splats, k + 11).rgb
      + 1.445305721320277 * d.z * (s.x - s.y) * at(splats, k + 13).rgb;
  return max(c + 0.5, 0.0);
}

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0); // outside, until it is known to be seen
  int base = int(splat) * (3 + (degree + 1) * (degree + 1));
  vec4 place = at(splats, base), shape = at(splats, base + 2);
  int face = int(place.w);
  vec4 turned = at(frames, 2 * face), center = at(frames, 2 * face + 1);
  vec3 world = center.w * turn(turned, place.xyz) + center.xyz;
  vec3 p = vec3(dot(view[0].xyz, world) + view[0].w, dot(view[1].xyz, world) + view[1].w, dot(view[2].xyz, world) + view[2].w);
  if (!(p.z > NEAR) || shape.w < MIN_ALPHA) return;
  vec2 margin = MARGIN * 0.5 * size / pinhole.xy;
  vec2 slope = clamp(p.xy / p.z, -(pinhole.zw / pinhole.xy + margin), (size - pinhole.zw) / pinhole.xy + margin);
  vec3 across = pinhole.x / p.z * (view[0].xyz - slope.x * view[2].xyz), down = pinhole.y / p.z * (view[1].xyz - slope.y * view[2].xyz);
  vec4 local = at(splats, base + 1), q = normalize(legacy ? times(local, turned) : times(turned, local));
  vec3 scale = shape.xyz * center.w;
  mat3 axes = mat3(turn(q, vec3(scale.x, 0, 0)), turn(q, vec3(0, scale.y, 0)), turn(q, vec3(0, 0, scale.z)));
  vec3 a = across * axes, b = down * axes;
  float xx = dot(a, a) + BLUR, xy = dot(a, b), yy = dot(b, b) + BLUR;
  float determinant = xx * yy - xy * xy;
  if (determinant <= 0.0) return;
  mean = pinhole.xy * p.xy / p.z + pinhole.zw;
  conic = vec3(yy, -xy, xx) / determinant;
  vec3 seen = normalize(world - eye);
  if (degree > 0) seen = turn(at(rests, 2 * face), turn(turned * vec4(1, -1, -1, -1), seen));
  color = vec4(shade(base, seen), shape.w);
  // The ellipse on which alpha is 1/255, as a box along its axes.
  float longer = 0.5 * (xx + yy) + length(vec2(0.5 * (xx - yy), xy)), angle = 0.5 * atan(2.0 * xy, xx - yy);
  vec2 axis = vec2(cos(angle), sin(angle)), reach = sqrt(2.0 * log(shape.w / MIN_ALPHA) * vec2(longer, determinant / longer)) + 0.01;
  vec2 pixel = mean + corner.x * reach.x * axis + corner.y * reach.y * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
}`;

  const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
uniform vec2 size;
flat in vec2 mean; flat in vec3 conic; flat in vec4 color;
out vec4 result;
void main() {
  vec2 d = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) - mean;
  float sigma = 0.5 * (conic.x * d.x * d.x + conic.z * d.y * d.y) + conic.y * d.x * d.y;
  float alpha = min(color.a * exp(-sigma), 0.999);
  if (sigma < 0.0 || alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;

  const SHOW_VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

  const SHOW_FRAGMENT = `#version 300 es
precision highp float; precision highp sampler2D;
uniform sampler2D image; uniform vec4 background;
out vec4 result;
void main() {
  vec4 c = texelFetch(image, ivec2(gl_FragCoord.xy), 0);
  result = clamp(vec4(c.rgb, c.a) + (1.0 - c.a) * vec4(background.rgb * background.a, background.a), 0.0, 1.0);
}`;

  function program(gl, vertex, fragment) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    ["corner", "splat"].forEach((name, index) => gl.bindAttribLocation(made, index, name));
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(made).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`This device's WebGL2 refuses the shaders: ${gl.getProgramInfoLog(made)} ${logs.join(" ")}`);
    }
    const uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
      const name = gl.getActiveUniform(made, i).name;
      uniforms[name.replace("[0]", "")] = gl.getUniformLocation(made, name);
    }
    return { made, uniforms };
  }

  function texture(gl, unit) {
    const made = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, made);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.NEAREST);
    return made;
  }

  // Puts floats, four per texel, into a texture of WIDTH columns: whole rows at once, the last one by itself.
  function fill(gl, unit, made, floats) {
    const texels = floats.length / 4, whole = Math.floor(texels / WIDTH), rest = texels - whole * WIDTH;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, made.texture);
    if (made.texels !== texels) {
      if (whole + 1 > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error("This avatar has more splats than this device can hold; export it with a smaller budget.");
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, whole + 1, 0, gl.RGBA, gl.FLOAT, null);
      made.texels = texels;
    }
    if (whole) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, whole, gl.RGBA, gl.FLOAT, floats, 0);
    if (rest) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, whole, rest, 1, gl.RGBA, gl.FLOAT, floats, 4 * WIDTH * whole);
  }

  // Blending many faint splats needs more than 8 bits.
  function target(gl, width, height, made) {
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, made.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, made.buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, made.texture, 0);
    if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE && !gl.isContextLost()) {
      throw new Error("This device cannot draw into 16-bit floating-point images, which the avatar needs.");
    }
    Object.assign(made, { width, height });
  }

  root.createRenderer = function (canvas, header, assets) {
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false, preserveDrawingBuffer: true });
    if (!gl) {
      throw new Error("This page draws with WebGL2, which this browser does not offer. Use a current Chrome, Edge, Firefox or Safari with hardware acceleration on.");
    }
    if (!gl.getExtension("EXT_color_buffer_float")) gl.getExtension("EXT_color_buffer_half_float");
    const splat = program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT), show = program(gl, SHOW_VERTEX, SHOW_FRAGMENT);
    const [splats, frames, rests] = [0, 1, 2].map((unit) => ({ texture: texture(gl, unit), texels: -1 }));
    const image = { texture: texture(gl, 3), buffer: gl.createFramebuffer(), width: 0, height: 0 };
    fill(gl, 0, splats, assets.texels);
    fill(gl, 1, frames, assets.restFrames);
    fill(gl, 2, rests, assets.restFrames);
    const corners = gl.createBuffer(), orders = gl.createBuffer(), list = gl.createVertexArray();
    gl.bindVertexArray(list);
    gl.bindBuffer(gl.ARRAY_BUFFER, corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, orders);
    gl.bufferData(gl.ARRAY_BUFFER, 4 * header.splats, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(1, 1);
    const degree = Math.sqrt(header.coefficients) - 1;

    function update(newFrames, order) {
      if (newFrames) fill(gl, 1, frames, newFrames);
      gl.bindBuffer(gl.ARRAY_BUFFER, orders);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
    }

    // camera: {rows: 3 x [x, y, z, offset] of world_to_camera, eye, pinhole: [fx, fy, cx, cy]}; background: rgba.
    function draw(camera, background) {
      const { width, height } = canvas;
      if (image.width !== width || image.height !== height) target(gl, width, height, image);
      gl.bindFramebuffer(gl.FRAMEBUFFER, image.buffer);
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.useProgram(splat.made);
      const u = splat.uniforms;
      gl.uniform1i(u.splats, 0);
      gl.uniform1i(u.frames, 1);
      gl.uniform1i(u.rests, 2);
      gl.uniform4fv(u.view, camera.rows.flat());
      gl.uniform3fv(u.eye, camera.eye);
      gl.uniform4fv(u.pinhole, camera.pinhole);
      gl.uniform2f(u.size, width, height);
      gl.uniform1i(u.degree, degree);
      gl.uniform1i(u.legacy, header.legacy ? 1 : 0);
      [splats, frames, rests].forEach((each, unit) => { gl.activeTexture(gl.TEXTURE0 + unit); gl.bindTexture(gl.TEXTURE_2D, each.texture); });
      gl.activeTexture(gl.TEXTURE3);
      gl.bindTexture(gl.TEXTURE_2D, null); // it is being drawn into
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, header.splats);
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.disable(gl.BLEND);
      gl.useProgram(show.made);
      gl.bindTexture(gl.TEXTURE_2D, image.texture);
      gl.uniform1i(show.uniforms.image, 3);
      gl.uniform4fv(show.uniforms.background, background);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }

    // RGBA bytes of the picture on the canvas, top row first.
    function pixels() {
      const { width, height } = canvas, raw = new Uint8Array(4 * width * height), out = new Uint8Array(raw.length);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, raw);
      for (let y = 0; y < height; y++) out.set(raw.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)), 4 * width * y);
      return out;
    }

    return { update, draw, pixels, gl };
  };
})((globalThis.AP3D = globalThis.AP3D || {}));
