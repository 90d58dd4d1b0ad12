// Runs a program of this repository on a Node that runs TypeScript as it stands (22.18 or later): on this one, on the
// one that npm installed, or on another one in PATH. Plain JavaScript, because Node 20 has to be able to run it.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const name = process.platform === 'win32' ? 'node.exe' : 'node'

const installed = join(root, 'node_modules', 'node', 'bin', name)
const inPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name))
const node = [process.execPath, installed, ...inPath].find(runsTypeScript)

if (node) run(node, ['--conditions=triphase-source', ...process.argv.slice(2)])
else {
  process.exitCode = 1
  console.error(`Triphase needs Node 22.18 or later, and this is ${process.version}.

\`npm ci\` brings one that fits, unless install scripts are switched off. Either let that one script run:
  npm rebuild node --ignore-scripts=false
or install Node 22.18 or later and put it first in PATH.`)
}

function runsTypeScript(candidate) {
  if (candidate === process.execPath) return Boolean(process.features.typescript)
  if (!existsSync(candidate)) return false
  try {
    const answer = execFileSync(candidate, ['-p', 'Boolean(process.features.typescript)'], {
      encoding: 'utf8',
    })
    return answer.trim() === 'true'
  } catch {
    return false // Made for another machine, or not a program at all.
  }
}

function run(node, args) {
  // What the program starts in its turn (`#!/usr/bin/env node`) has to find the same Node.
  const env = { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH ?? ''}` }
  // Taking this process's place leaves nobody in between who could lose a signal. Node 20 and Windows cannot do it.
  if (process.execve && process.platform !== 'win32') process.execve(node, [node, ...args], env)
  const child = spawn(node, args, { stdio: 'inherit', env })
  process.on('SIGINT', () => {}) // The terminal sends it to the program too.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]))
}
