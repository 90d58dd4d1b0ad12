import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { defineStagedTask, defineTask, type TriphaseError, unchecked } from '../../src/index.ts'
import { jobIn } from '../support/jobs.ts'
import { useScene } from './scene.ts'

const scene = useScene()

function compute(ms: number): void {
  const began = performance.now()
  while (performance.now() - began < ms);
}

async function thrownBy(work: Promise<unknown>): Promise<TriphaseError> {
  return work.then(
    () => {
      throw new Error('it was committed')
    },
    (error: unknown) => error as TriphaseError,
  )
}

describe('mode error', () => {
  test('one error says what was called, from where, in which transaction, and what to do', async () => {
    const error = await thrownBy(
      scene.engine.transaction(async (tx) => {
        await scene.mark(tx)
        await Promise.all([fetch(`${scene.url}/a`, { method: 'PUT', body: 'b' }), fetch(`${scene.url}/c`)])
      }),
    )
    expect(error).toMatchObject({ name: 'TriphaseError', code: 'CALL_IN_TRANSACTION' })
    const here = String.raw`packages/triphase/test/guard/modes\.test\.ts:\d+:\d+`
    expect(error.message).toMatch(
      new RegExp(
        `^PUT ${scene.host} was called at ${here} inside the transaction opened at ${here}, which holds`,
      ),
    )
    expect(error.message).toContain("It was rolled back, as the guard's mode is 'error'. Make the call first")
    expect(error.message).toContain(`{ allow: ['${scene.host}'] }`)
    expect(await scene.marks()).toEqual([])
  })

  test('no secret of a call is in it', async () => {
    const url = scene.url.replace('//', '//user:SECRET@')
    const error = await thrownBy(
      scene.transaction(async () => {
        await fetch(`${scene.url}/SECRET/path?key=SECRET`, { headers: { authorization: 'SECRET' } })
        await fetch(url).catch(() => {})
      }),
    )
    expect(inspect(error, { depth: 20 })).not.toContain('SECRET')
  })

  test('what the work throws itself is what its caller gets, and the call is reported', async () => {
    const failing = scene.transaction(async () => {
      await fetch(scene.url)
      throw new Error('its own')
    })
    await expect(failing).rejects.toThrow('its own')
    expect(scene.reports).toEqual([expect.stringContaining(`GET ${scene.host} was called`)])
  })

  test('a transaction that is open too long is reported while it is open, and commits', async () => {
    const engine = scene.guarded({ guard: { maxHold: 30 } })
    await engine.transaction(async (tx) => {
      const { kind, refused, message } = await engine.telemetry.next('guard:offence')
      expect({ kind, refused }).toEqual({ kind: 'hold', refused: false })
      expect(message).toMatch(
        /^The transaction opened at packages.*modes\.test\.ts:\d+:\d+ was open for more than 30 ms/,
      )
      await scene.mark(tx)
    })
    expect(await scene.marks()).toEqual(['mark'])
  })

  test('a call is the reason, where the time that it took is one to be reported', async () => {
    const engine = scene.guarded({ guard: { maxHold: 10 } })
    const work = async () => {
      await fetch(scene.url)
      await delay(30)
    }
    await expect(engine.transaction(work)).rejects.toMatchObject({ code: 'CALL_IN_TRANSACTION' })
  })

  test('maxHold can be set for one transaction, and be none', async () => {
    const engine = scene.guarded({ guard: { maxHold: 10 } })
    await engine.transaction(() => delay(30), { maxHold: '1s' })
    await engine.transaction(() => delay(30), { maxHold: false })
    expect(scene.reports).toEqual([])
    await engine.transaction(() => delay(30))
    expect(scene.reports).toEqual([expect.stringContaining('open for more than 10 ms')])
  })

  test('each transaction is judged for itself', async () => {
    for (let turn = 0; turn < 3; turn++) {
      await expect(scene.transaction(() => fetch(scene.url))).rejects.toThrow(scene.host)
      await scene.transaction(async () => {})
    }
    expect(await scene.marks()).toHaveLength(3)
  })
})

describe('mode warn', () => {
  test('it commits, and each place is reported once', async () => {
    const engine = scene.guarded({ guard: { mode: 'warn' } })
    const call = () =>
      engine.transaction(async (tx) => {
        await scene.mark(tx)
        await fetch(scene.url)
      })
    for (let turn = 0; turn < 3; turn++) await call()
    await engine.transaction(() => fetch(scene.url))
    expect(await scene.marks()).toHaveLength(3)
    expect(scene.reports).toEqual(Array(2).fill(expect.stringContaining(`GET ${scene.host} was called`)))
    expect(scene.reports.join()).not.toContain('rolled back')
  })

  test('a listener of the report may call: it runs outside of the transactions around', async () => {
    const [inner, outer] = [{ maxHold: 10 }, { maxHold: false } as const].map((guard) =>
      scene.guarded({ guard: { mode: 'warn', ...guard } }),
    )
    const called = new Promise((resolve) => {
      inner?.telemetry.on('guard:offence', () => fetch(scene.url).then(resolve))
    })
    await outer?.transaction(async () => {
      await inner?.transaction(async () => compute(15))
      await called
    })
    expect(scene.requests).toHaveLength(1)
    expect(scene.reports).toEqual([expect.stringContaining('open for more than 10 ms')])
  })
})

test('mode off: nothing is said', async () => {
  const engine = scene.guarded({ guard: { mode: 'off', maxHold: 1 } })
  await engine.transaction(async (tx) => {
    await scene.mark(tx)
    await fetch(scene.url)
    await delay(5)
  })
  expect(await scene.marks()).toEqual(['mark'])
  expect(scene.reports).toEqual([])
})

test('a statement beside the transaction, by the query of a staged task', async () => {
  const task = defineStagedTask({
    name: 'queries',
    input: unchecked<null>(),
    maxAttempts: 1,
    prepare: async () => null,
    call: ({ query }) => engine.transaction(() => query('SELECT 1')),
    commit: () => null,
  })
  const engine = scene.guarded({ tasks: [task], queues: { default: 1 } })
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  expect(await jobIn(engine, id, 'discarded')).toMatchObject({ error: { code: 'SECOND_CHECKOUT' } })
})

test('jobs run where the engine was started, whoever made them known', async () => {
  const context = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  const task = defineTask({
    name: 'looks',
    input: unchecked<null>(),
    run: () => seen.push(context.getStore()),
  })
  const engine = scene.guarded({ tasks: [task], queues: { default: 1 } })
  await context.run('start', () => engine.start())
  for (const where of ['first', 'second']) {
    const { id } = await context.run(where, () => engine.enqueue(task, null))
    await jobIn(engine, id, 'completed')
  }
  const { id } = await scene.guarded({ tasks: [task] }).enqueue(task, null)
  await jobIn(engine, id, 'completed')
  expect(seen).toEqual(['start', 'start', 'start'])
})
