// Builds the page into the folder of the first argument, by default `service/page`.
// The build is reproducible: a test compares a fresh build with the shipped files.
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const source = dirname(fileURLToPath(import.meta.url));
// Licence files of a package. The last one covers the libraries inside Swagger UI's bundle.
const LICENSE = /^(licen[sc]e|notice|swagger-ui-bundle\.js\.licen[sc]e)/i;
const target = process.argv[2] ?? join(source, "../service/page");

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const { metafile } = await build({
  absWorkingDir: source,
  entryPoints: { app: "src/main.tsx" },
  outdir: target,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  metafile: true,
});
await cp(join(source, "src/index.html"), join(target, "index.html"));
await cp(join(source, "../examples"), join(target, "examples"), { recursive: true });
// The API documentation: the published files of Swagger UI, and a script that starts it.
const swagger = "node_modules/swagger-ui-dist";
for (const file of ["swagger-ui-bundle.js", "swagger-ui.css"]) {
  await cp(join(source, swagger, file), join(target, file));
}
for (const file of ["docs.html", "docs.js"]) {
  await cp(join(source, "src", file), join(target, file));
}
const inputs = [...Object.keys(metafile.inputs), swagger];
await writeFile(join(target, "licenses.txt"), await licenses(inputs));

/** The licence texts of the bundled libraries, in alphabetical order. */
async function licenses(inputs) {
  const packages = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  const texts = [];
  for (const name of [...new Set(packages)].filter(Boolean).sort()) {
    const folder = join(source, "node_modules", name);
    for (const file of (await readdir(folder)).filter((entry) => LICENSE.test(entry))) {
      texts.push(`${name}\n\n${await readFile(join(folder, file), "utf8")}`);
    }
  }
  return texts.join("\n----\n\n");
}
