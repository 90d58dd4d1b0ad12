import { readFileSync } from 'node:fs'

/** A row of the tables in docs/guard.md. */
export interface GuardRow {
  readonly id: string
  readonly what: string
  readonly outcome: 'refused' | 'reported' | 'committed'
  /** What the error or report names; HOST is the server's. */
  readonly named: string
}

const PAGE = new URL('../../../../docs/guard.md', import.meta.url)

const CELLS = /^\| `([a-z0-9-]+)` \| (.+?) \| (refused|reported|committed) \| (?:`(.+?)`)? ?\|$/

/** The rows of all tables, in their order. */
export function readTable(): GuardRow[] {
  const rows = readFileSync(PAGE, 'utf8')
    .split('\n')
    .filter((line) => /^\| `[a-z0-9-]+` \|.*\|.*\|.*\|$/.test(line) && !/^\| `(mode|allow)` /.test(line))
  return rows.map(rowOf)
}

function rowOf(line: string): GuardRow {
  const cells = CELLS.exec(line.replaceAll(/ +/g, ' ').trim())
  if (!cells) throw new Error(`docs/guard.md: this is no row of the table: ${line}`)
  const [, id, what, outcome, named = ''] = cells as unknown as string[]
  return { id: id!, what: what!, outcome: outcome as GuardRow['outcome'], named }
}
