import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { cancel, defineTask, discard, Permanent, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { Gate, jobIn } from '../support/jobs.ts'

const bench = useEngines()

describe('a finished job that is wanted again', () => {
  test.each([
    ['discarded', () => discard('no')],
    ['cancelled', () => cancel('no')],
    ['discarded', () => Promise.reject(new Permanent('no'))],
  ] as const)('that was %s runs again, with its attempts anew', async (state, first) => {
    let calls = 0
    const task = defineTask({
      name: 'task',
      input: unchecked<string>(),
      maxAttempts: 1,
      run: ({ input, job: { attempt } }) => (++calls === 1 ? first() : { input, attempt }),
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: '30s', deadAfter: '90s' })
    await engine.start()
    const { id } = await engine.enqueue(task, 'x', { tags: ['t'] })
    await jobIn(engine, id, state)
    expect(await engine.retry(id)).toBe(true)
    const job = await jobIn(engine, id, 'completed')
    expect(job).toMatchObject({ result: { input: 'x', attempt: 1 }, tags: ['t'], error: null })
  })

  test('was cancelled while it ran: the old request does not cancel it again', async () => {
    const gates = [new Gate(), new Gate()]
    let calls = 0
    const task = defineTask({
      name: 'task',
      input: unchecked<null>(),
      run: async ({ signal }) => {
        const call = calls++
        await gates[call]!.pass()
        if (call === 0) await once(signal, 'abort')
        signal.throwIfAborted()
        return 'done'
      },
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: 100, deadAfter: 300 })
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    await gates[0]!.reached
    expect(await engine.cancel(id)).toBe('requested')
    gates[0]!.open()
    await jobIn(engine, id, 'cancelled')
    expect(await engine.retry(id)).toBe(true)
    await gates[1]!.reached
    const { database } = bench.schema
    const beats = async () =>
      Number((await database.query<{ beat: string }>('SELECT beat FROM triphase.process'))[0]!.beat)
    const before = await beats()
    await expect.poll(beats).toBeGreaterThan(before + 2)
    gates[1]!.open()
    expect((await jobIn(engine, id, 'completed')).result).toBe('done')
  })

  test('stays as it is where it is completed, running or unknown', async () => {
    const gate = new Gate()
    const task = defineTask({ name: 'task', input: unchecked<string>(), run: () => gate.pass() })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(task, 'x')
    await gate.reached
    expect(await engine.retry(id)).toBe(false)
    gate.open()
    await jobIn(engine, id, 'completed')
    expect(await engine.retry(id)).toBe(false)
    expect(await engine.retry('424242424242')).toBe(false)
    expect(await engine.retry('nonsense')).toBe(false)
  })

  test('stays as it is where a live job holds its key', async () => {
    const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => null })
    const engine = bench.engine()
    const first = await engine.enqueue(task, null, { uniqueKey: 'k' })
    await engine.cancel(first.id)
    await engine.enqueue(task, null, { uniqueKey: 'k' })
    expect(await engine.retry(first.id)).toBe(false)
    expect(await engine.job(first.id)).toMatchObject({ state: 'cancelled' })
  })
})

test.each([
  ['retryable', { backoff: { initial: '1h' } }, {}],
  ['scheduled', {}, { delay: '1h' }],
] as const)('a job that is %s runs now', async (state, ofTask, ofJob) => {
  let calls = 0
  const task = defineTask({
    name: 'task',
    input: unchecked<null>(),
    run: () => (state === 'retryable' && ++calls === 1 ? Promise.reject(new Error('not yet')) : 'now'),
    ...ofTask,
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: '30s', deadAfter: '90s' })
  await engine.start()
  const { id } = await engine.enqueue(task, null, ofJob)
  await jobIn(engine, id, state)
  expect(await engine.retry(id)).toBe(true)
  expect((await jobIn(engine, id, 'completed')).result).toBe('now')
})
