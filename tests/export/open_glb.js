// usage: node open_glb.js FILE.glb JOBS.json OUT_FOLDER
// Opens a GLB with three.js and with Babylon.js in headless Chromium, as a page of theirs would. JOBS: {clip, times:
// [seconds]}. Writes answer.json and, per viewer and time, three0.f32 ... and babylon0.f32 ...: the skinned
// and morphed vertices in the world, x y z. NODE_PATH must lead to playwright-core, three, babylonjs, babylonjs-loaders.
const fs = require("fs");
const http = require("http");
const path = require("path");
const { withChromium, SOFTWARE_GL } = require("../host/chromium.js");

const folderOf = (name) => path.join(process.env.NODE_PATH, name);
const PAGE = `<!doctype html><link rel="icon" href="data:,">
<canvas id="canvas"></canvas>
<script type="importmap">{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}</script>
<script src="/babylonjs/babylon.js"></script><script src="/babylonjs-loaders/babylonjs.loaders.min.js"></script>`;

function serve(file) {
  const server = http.createServer((request, response) => {
    const [, first, ...rest] = decodeURI(request.url.split("?")[0]).split("/");
    const packages = ["three", "babylonjs", "babylonjs-loaders"];
    if (!first) return response.setHeader("content-type", "text/html"), response.end(PAGE);
    const found = first === "avatar.glb" ? file : packages.includes(first) && path.join(folderOf(first), ...rest);
    if (!found || !fs.existsSync(found)) return (response.statusCode = 404), response.end();
    if (found.endsWith(".js")) response.setHeader("content-type", "text/javascript");
    response.end(fs.readFileSync(found));
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// Each viewer's own way: what it found in the file, and the world's vertices at each time, as arrays of numbers.
async function inThree({ clip, times }) {
  const THREE = await import("three");
  const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
  const { scene, animations } = await new GLTFLoader().loadAsync("/avatar.glb");
  let mesh;
  scene.traverse((node) => (mesh = node.isSkinnedMesh ? node : mesh));
  const mixer = new THREE.AnimationMixer(scene);
  const action = mixer.clipAction(THREE.AnimationClip.findByName(animations, clip));
  action.setLoop(THREE.LoopOnce).clampWhenFinished = true;
  action.play();
  const frames = times.map((time) => {
    mixer.setTime(time);
    scene.updateMatrixWorld(true);
    mesh.skeleton.update();
    const place = new THREE.Vector3(), count = mesh.geometry.attributes.position.count, out = [];
    for (let i = 0; i < count; i++) out.push(...mesh.localToWorld(mesh.getVertexPosition(i, place)).toArray());
    return out;
  });
  const bones = mesh.skeleton.bones.map((bone) => bone.name);
  return { morphs: Object.keys(mesh.morphTargetDictionary), bones, clips: animations.map((one) => one.name), frames };
}

async function inBabylon({ clip, times }) {
  const engine = new BABYLON.Engine(document.getElementById("canvas")), scene = new BABYLON.Scene(engine);
  scene.useRightHandedSystem = true;
  await BABYLON.SceneLoader.AppendAsync("/", "avatar.glb", scene);
  const mesh = scene.meshes.find((one) => one.skeleton), targets = mesh.morphTargetManager;
  const group = scene.animationGroups.find((one) => one.name === clip);
  group.start(false);
  group.pause();
  const rate = group.targetedAnimations[0].animation.framePerSecond;
  const frames = times.map((time) => {
    group.goToFrame(time * rate);
    for (const node of scene.transformNodes) node.computeWorldMatrix(true);
    const world = mesh.computeWorldMatrix(true);
    mesh.skeleton.prepare(true);
    const local = mesh.getPositionData(true, true), out = [];
    for (let i = 0; i < local.length; i += 3)
      out.push(...BABYLON.Vector3.TransformCoordinates(BABYLON.Vector3.FromArray(local, i), world).asArray());
    return out;
  });
  const morphs = Array.from({ length: targets.numTargets }, (_, i) => targets.getTarget(i).name);
  const bones = mesh.skeleton.bones.map((bone) => bone.name);
  return { morphs, bones, clips: scene.animationGroups.map((one) => one.name), frames };
}

async function main() {
  const [file, jobsFile, folder] = process.argv.slice(2);
  const jobs = JSON.parse(fs.readFileSync(jobsFile, "utf8"));
  const server = await serve(path.resolve(file));
  const answer = { said: [] };
  const look = async (page) => {
    page.on("pageerror", (error) => answer.said.push(String(error.stack)));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && answer.said.push(message.text()));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    for (const [name, viewer] of [["three", inThree], ["babylon", inBabylon]]) {
      const { frames, ...found } = await page.evaluate(viewer, jobs);
      answer[name] = found;
      frames.forEach((frame, k) => fs.writeFileSync(path.join(folder, `${name}${k}.f32`), Buffer.from(new Float32Array(frame).buffer)));
    }
  };
  try {
    await withChromium(look, { args: SOFTWARE_GL });
  } finally {
    server.close();
  }
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
