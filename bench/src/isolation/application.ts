import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { runSubject } from '../support/subject.ts'
import { Checkouts } from './checkouts.ts'

export interface ApplicationOrder {
  url: string
}

const WARM_UP_MS = 500

/** A process that does nothing but check out connections of the application, whenever it is told to. */
await runSubject<ApplicationOrder>(async ({ url }, parent) => {
  const pool = new pg.Pool({ connectionString: url, max: 10 })
  const transaction = async (began: () => void) => {
    const client = await pool.connect()
    began()
    await client.query('BEGIN')
    await client.query('SELECT 1')
    await client.query('COMMIT')
    client.release()
  }
  const checkouts = new Checkouts()
  await checkouts.until(delay(WARM_UP_MS), transaction)
  checkouts.forget()
  parent.tell('ready')
  const enough = parent.heard('enough').then(() => true)
  while (!(await Promise.race([parent.heard('begin').then(() => false), enough]))) {
    await checkouts.until(parent.heard('pause'), transaction)
    parent.tell('paused')
  }
  parent.tell('found', checkouts.figures())
  await pool.end()
})
