import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Programs that a benchmark uses when the machine has them. */
export type Program = 'redis-server' | 'pgbouncer'

/** Debian keeps servers where only root's PATH leads. */
const FOLDERS = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']

/** Where a program is; undefined when it is not installed. */
export function findProgram(name: Program): string | undefined {
  return FOLDERS.map((folder) => join(folder, name)).find((file) => {
    try {
      accessSync(file, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
