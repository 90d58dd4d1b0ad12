import { readFileSync } from 'node:fs'

/** A row of the table in docs/staged-tasks.md. */
export interface TableRow {
  readonly id: string
  /** What happens, and when. */
  readonly when: string
  readonly next: string
  /** Calls of the API, in all. */
  readonly calls: number
  /** The job's state at the end. */
  readonly job: string
  /** The attempt in which it ended. */
  readonly attempt: number
  /** The application's row at the end: `none`, or its status. */
  readonly row: string
}

const PAGE = new URL('../../../../docs/staged-tasks.md', import.meta.url)

const CELLS = /^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \| (\d+) \| (\w+) \| (\d+) \| (\w+) \|$/

/** The table's rows, in their order. */
export function readTable(): TableRow[] {
  return readFileSync(PAGE, 'utf8')
    .split('\n')
    .filter((line) => /^\| `[a-z0-9-]+` +\|/.test(line))
    .map(rowOf)
}

function rowOf(line: string): TableRow {
  const cells = CELLS.exec(line.replaceAll(/ +/g, ' ').trim())
  if (!cells) throw new Error(`docs/staged-tasks.md: this is no row of the table: ${line}`)
  const [, id, when, next, calls, job, attempt, row] = cells as unknown as string[]
  return {
    id: id!,
    when: when!,
    next: next!,
    calls: Number(calls),
    job: job!,
    attempt: Number(attempt),
    row: row!,
  }
}
