import { setTimeout as delay } from 'node:timers/promises'
import { runSubject } from '../support/subject.ts'

/** A process that keeps a core busy until it is told to end, and uses no database. */
await runSubject(async (_order, parent) => {
  let over = false
  void parent.heard('enough').then(() => {
    over = true
  })
  parent.tell('ready')
  while (!over) {
    const until = performance.now() + 20
    while (performance.now() < until);
    await delay(0)
  }
})
