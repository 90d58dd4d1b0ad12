import { afterEach, expect, test } from 'vitest'
import { defineTask, unchecked } from '../src/index.ts'
import { Telemetry } from '../src/telemetry.ts'
import { useEngines } from './support/engines.ts'
import { jobIn } from './support/jobs.ts'

const bench = useEngines()

const warnings: string[] = []
const keep = (warning: Error) => warnings.push(warning.message)
process.on('warning', keep)
afterEach(() => {
  warnings.length = 0
})

const EVENT = { count: 1 }

test('every listener is told, until it is taken away', () => {
  const telemetry = new Telemetry()
  const heard: string[] = []
  const endA = telemetry.on('jobs:staged', () => heard.push('a'))
  telemetry.on('jobs:staged', () => heard.push('b'))
  const endAny = telemetry.onAny((name) => heard.push(`any ${name}`))
  telemetry.emit('jobs:staged', EVENT)
  endA()
  endAny()
  telemetry.emit('jobs:staged', EVENT)
  expect(heard).toEqual(['a', 'b', 'any jobs:staged', 'b'])
})

test('next() gives the first event that fits, once', async () => {
  const telemetry = new Telemetry()
  const next = telemetry.next('jobs:staged', ({ count }) => count > 1)
  for (const count of [1, 2, 3]) telemetry.emit('jobs:staged', { count })
  expect(await next).toEqual({ count: 2 })
})

test('a listener that takes itself away while it is told disturbs nobody', () => {
  const telemetry = new Telemetry()
  let heard = 0
  const end = telemetry.on('jobs:staged', () => end())
  telemetry.on('jobs:staged', () => heard++)
  telemetry.emit('jobs:staged', EVENT)
  telemetry.emit('jobs:staged', EVENT)
  expect(heard).toBe(2)
})

test('a listener that throws or rejects is reported, and the others are told', async () => {
  const telemetry = new Telemetry()
  let heard = 0
  telemetry.on('jobs:staged', () => {
    throw new Error('first')
  })
  telemetry.on('jobs:staged', async () => Promise.reject(new Error('second')))
  telemetry.onAny(() => {
    throw Object.create(null)
  })
  telemetry.on('jobs:staged', () => heard++)
  telemetry.onAny(() => heard++)
  telemetry.emit('jobs:staged', EVENT)
  expect(heard).toBe(2)
  await expect.poll(() => warnings.toSorted()).toHaveLength(3)
  expect(warnings.join()).toMatch(/listener failed: first/)
  expect(warnings.join()).toMatch(/listener failed: second/)
})

test('an engine whose listeners all throw works as without them', async () => {
  let calls = 0
  const task = defineTask({
    name: 'task',
    input: unchecked<null>(),
    backoff: { initial: 1 },
    run: () => (++calls < 3 ? Promise.reject(new Error('again')) : 'done'),
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  const seen = new Set<string>()
  engine.telemetry.onAny((name) => {
    seen.add(name)
    throw new Error('from a listener')
  })
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  expect(await jobIn(engine, id, 'completed')).toMatchObject({ result: 'done', attempt: 3 })
  await engine.stop()
  expect([...seen]).toEqual(
    expect.arrayContaining([
      'job:enqueued',
      'job:started',
      'job:retried',
      'job:completed',
      'jobs:staged',
      'queue:claimed',
      'process:started',
      'process:stopped',
      'pool:held',
    ]),
  )
})
