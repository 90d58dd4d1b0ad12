import { memory } from '../support/memory.ts'
import { RunCount, runSubject } from '../support/subject.ts'
import { callOf, type Row } from './records.ts'
import { triphase } from './subjects.ts'

export interface MemoryOrder {
  url: string
  records: number
  concurrency: number
}

/** One process that goes over all records, and tells how much memory it has after a tenth of them and after all. */
await runSubject<MemoryOrder>(async ({ url, records, concurrency }, parent) => {
  const runs = new RunCount(records)
  const call = callOf(0)
  let count = 0
  let looked: Promise<void> | undefined
  const look = async () => parent.tell('memory', await memory())
  const subject = await triphase(url, concurrency, async (row: Row) => {
    runs.count(Number(row.id) - 1)
    if (++count === Math.floor(records / 10)) looked = look()
    await looked
    return call(row)
  })
  await subject.work()
  await look()
  await subject.close()
  parent.tell('faults', runs.faults())
})
