import pg from 'pg'
import { runSubject, timed } from '../support/subject.ts'
import { HINTS, type HintShape } from './shapes.ts'

export interface HintOrder {
  url: string
  shape: string
  atOnce: number
  jobs: number
}

/** Connections that write one job after the other, each with its hint. */
await runSubject<HintOrder>(async ({ url, shape: name, atOnce, jobs }, parent) => {
  const { insert, notify, everyMs } = HINTS[name] as HintShape
  const pool = new pg.Pool({ connectionString: url, max: atOnce + 1 })
  let next = 0
  let hint: Promise<unknown> | undefined

  const hinted = (): Promise<unknown> | undefined => {
    if (!notify) return undefined
    if (everyMs === undefined) return pool.query(notify)
    hint ??= pool
      .query(notify)
      .then(() => new Promise((resolve) => setTimeout(resolve, everyMs)))
      .finally(() => {
        hint = undefined
      })
    return undefined
  }

  const lane = async (): Promise<void> => {
    while (next < jobs) {
      await pool.query(insert, [JSON.stringify({ n: next++ })])
      await hinted()
    }
  }

  await timed(parent, async () => {
    await Promise.all(Array.from({ length: atOnce }, lane))
    await hint
    return {}
  })
  await pool.end()
})
