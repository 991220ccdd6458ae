// Prints what Khronos's validator says of a glTF file, as a JSON list. NODE_PATH must lead to gltf-validator.
const fs = require("fs");
const validator = require("gltf-validator");

validator
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])), { maxIssues: 10000 })
  .then((report) => process.stdout.write(JSON.stringify(report.issues.messages)));
