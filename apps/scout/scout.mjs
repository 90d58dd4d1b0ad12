#!/usr/bin/env node
// Starts Scout on a Node that runs TypeScript by itself: this one, or else the one that npm installed with the project.
// Must itself load on Node 20: nothing newer before the version is known.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import * as nodeModule from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const OLDEST = '22.18.0'
const launcher = fileURLToPath(import.meta.url)
const root = path.resolve(path.dirname(launcher), '../..')

if (runsTypeScript(process.versions.node)) await runHere()
else runOn(installedNode())

/**
 * In this process, not in a child: a signal, also SIGKILL, then reaches Scout and not a launcher. The hook makes the
 * workspace's packages resolve to their sources, as `--conditions=triphase-source` would.
 */
async function runHere() {
  const { npm_lifecycle_event: script, INIT_CWD: folder } = process.env
  // npm changes to the project's folder first, and a relative path is meant from where the command was typed.
  if (script === 'scout' && folder && existsSync(folder)) process.chdir(folder)
  // Half of the time until the first line is for compiling what has not changed since the last run.
  nodeModule.enableCompileCache(path.join(root, 'node_modules/.cache/scout'))
  nodeModule.registerHooks({
    resolve: (specifier, context, next) =>
      next(specifier, { ...context, conditions: [...context.conditions, 'triphase-source'] }),
  })
  await import('./src/main.ts')
}

/** @param {string} node */
function runOn(node) {
  const child = spawn(node, [...process.execArgv, launcher, ...process.argv.slice(2)], { stdio: 'inherit' })
  // Ctrl-C and a closed terminal reach the child by themselves; the launcher only has to outlive it.
  process.on('SIGINT', () => {})
  process.on('SIGHUP', () => {})
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.on('error', (error) => giveUp(`${node} could not be started: ${error.message}.`))
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}

/** With `npm ci --ignore-scripts`, the package `node` is there and its binary is not: so each place is tried. */
function installedNode() {
  const exe = process.platform === 'win32' ? 'node.exe' : 'node'
  const platform = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
  const places = ['.bin', 'node/bin', `node/node_modules/${platform}/bin`, `${platform}/bin`]
  for (const place of places) {
    const node = path.join(root, 'node_modules', place, exe)
    const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
    if (stdout && runsTypeScript(stdout.trim().replace(/^v/, ''))) return node
  }
  return giveUp(`No newer Node was found in ${path.join(root, 'node_modules')}.`)
}

/** @param {string} version */
function runsTypeScript(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const since = major === 22 ? 18 : major === 23 ? 6 : 0
  return major >= 22 && minor >= since
}

/** @param {string} reason @returns {never} */
function giveUp(reason) {
  console.error(
    `Scout needs Node ${OLDEST} or newer, and this is Node ${process.versions.node}. ${reason}\n` +
      `Run \`npm ci\` in ${root} without --ignore-scripts, which installs a Node 24 for this project only, or install a newer Node.`,
  )
  process.exit(1)
}
