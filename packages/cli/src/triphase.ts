#!/usr/bin/env node
// Must itself load on older versions of Node, to say that they are too old.
import { EXIT } from './exit-codes.ts'

const OLDEST = [22, 18] as const

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
  console.error(
    `triphase needs Node ${OLDEST.join('.')} or later, and this is Node ${process.versions.node}.`,
  )
  process.exit(EXIT.config)
}
const { main } = await import('./program.ts')
const { flushed } = await import('./output.ts')
const code = await main(process.argv.slice(2))
// What the config file left open (a pool of its own, a timer) must not keep the process.
await flushed(process.stdout)
await flushed(process.stderr)
process.exit(code)
