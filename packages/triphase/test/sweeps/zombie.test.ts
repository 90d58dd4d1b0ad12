import { expect, test } from 'vitest'
import { defineSweep } from '../../src/index.ts'
import { rescueProcess } from '../../src/store/rescue.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_zombie_records')

test('of a process that was taken for dead and its successor the first mark stands, and is counted once', async () => {
  await records.fill(4)
  const gates = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() }
  const calls: string[] = []
  const sweepOf = (name: 'a' | 'b') =>
    defineSweep<{ id: string }>({
      name: 'zombie',
      table: { name: records.name, key: 'id' },
      concurrency: 4,
      each: async ({ id }) => {
        calls.push(`${name}${id}`)
        if (name === 'a' || Number(id) > 2) await gates[name].promise
        return `by ${name}`
      },
    })
  const options = { queues: { default: 2 }, heartbeat: '20s', deadAfter: '60s' } as const
  const a = bench.engine({ tasks: [sweepOf('a')], ...options })
  const started = a.telemetry.next('process:started')
  await a.start()
  const { processId } = await started
  await a.sweep(sweepOf('a')).run()
  await eventually(() => expect(calls).toHaveLength(4))

  const [{ beat }] = (await bench.schema.database.query('SELECT beat::text FROM triphase.process')) as [
    { beat: string },
  ]
  await rescueProcess(bench.schema.database, { id: processId, beat }, '{}')
  const b = bench.engine({ tasks: [sweepOf('b')], ...options })
  await b.start()
  await eventually(() => expect(calls).toHaveLength(7))
  await eventually(async () => expect(await records.counts()).toEqual({ done: 2, pending: 2 }))
  gates.a.resolve()
  await eventually(async () => expect(await records.counts()).toEqual({ done: 4 }))
  // The last of them is not called once more: it is looked at again before.
  gates.b.resolve()
  expect(await b.sweep(sweepOf('b')).settled()).toMatchObject({ state: 'completed', done: 4, errors: 0 })
  const results = await records.rows<{ result: string }>()
  expect(results.map(({ result }) => result)).toEqual(['by b', 'by b', 'by a', 'by a'])
  expect(calls).toEqual(['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'b3'])
})
