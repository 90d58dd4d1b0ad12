import { createEngine } from 'triphase'
import { describe, expect, test } from 'vitest'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import { setScene } from '../support/scene.ts'

describe.concurrent('told to stop', () => {
  test.for([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    'by %s it lets its calls finish, says so, and goes on when run again',
    async ([signal, code], { onTestFinished }) => {
      const { analyze, model, database } = await setScene(10, onTestFinished)
      await model.behave({ behaviour: { kind: 'hold' } })
      const scout = analyze({ SCOUT_CONCURRENCY: '4' })
      await model.calls(4)
      scout.signal(signal)
      await scout.says(/^Stopping: calls under way get 10 s to finish\. Ctrl-C again ends at once\.$/m)
      await model.release()
      const stopped = await scout.ended
      expect(stopped).toMatchObject({ code, errors: '' })
      expect(stopped.output).toMatch(
        /\nStopped with 4 of 10 images analysed\. Run the same command again for the rest\.\n$/,
      )
      expect((await model.calls()).calls).toHaveLength(4)

      expect((await analyze().ended).code).toBe(0)
      expect((await model.calls()).calls).toHaveLength(10)
      expect((await database.analyses()).map(({ status }) => status)).toEqual(Array(10).fill('completed'))
    },
  )

  test('it asks for no rest where there is none', async ({ onTestFinished }) => {
    const { analyze, model } = await setScene(2, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze()
    await model.calls(2)
    scout.signal('SIGINT')
    await scout.says(/^Stopping/m)
    await model.release()
    expect((await scout.ended).output).toMatch(
      /\nStopped with 2 of 2 images analysed\. Run the same command again to see the results\.\n$/,
    )
  })

  test('it hands back what does not finish in time, and no attempt is burned', async ({ onTestFinished }) => {
    const { analyze, model, database } = await setScene(3, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze()
    await model.calls(3)
    const began = performance.now()
    scout.signal('SIGINT')
    expect(await scout.ended).toMatchObject({ code: 130, errors: '' })
    expect(performance.now() - began).toBeLessThan(15_000)
    const { rows } = await database.pool.query('SELECT state, attempt, crash_count FROM triphase.job')
    expect(rows).toEqual(Array(3).fill({ state: 'available', attempt: 0, crash_count: 0 }))
    await model.behave()
    expect((await analyze().ended).code).toBe(0)
  })

  test('a second signal ends it at once, and nothing is lost', async ({ onTestFinished }) => {
    const { analyze, model } = await setScene(3, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze()
    await model.calls(3)
    scout.signal('SIGINT')
    await scout.says(/^Stopping/m)
    // What follows at once is the same key press, as it comes from npm.
    await eventually(() => !scout.signal('SIGINT'), { interval: 100 })
    expect(await scout.ended).toMatchObject({ code: 130, signal: null })
    expect(scout.said).not.toContain('Stopped with')
    await model.behave()
    expect((await analyze().ended).code).toBe(0)
  })

  test('while it waits for a database, it ends at once', async ({ onTestFinished }) => {
    const { analyze } = await setScene(1, onTestFinished)
    const scout = analyze({ DATABASE_URL: 'postgres://scout:hunter2@127.0.0.1:1/scout' })
    await scout.says(
      /^The database cannot be reached: .*ECONNREFUSED 127\.0\.0\.1:1\. .*Waiting for it for up to 60 s\.$/m,
    )
    scout.signal('SIGINT')
    const ended = await scout.ended
    expect(ended).toMatchObject({ code: 130, errors: '' })
    expect(scout.said).not.toContain('hunter2')
  })

  test('while it reads the folder, it stops there', async ({ onTestFinished }) => {
    const { analyze, database, model } = await setScene(40, onTestFinished)
    await model.behave({ behaviour: { kind: 'answer', delayMs: 20 } })
    const scout = analyze()
    await eventually(
      () =>
        database.analyses().then(
          (rows) => rows.length > 2,
          () => false,
        ),
      { interval: 5 },
    )
    scout.signal('SIGTERM')
    expect(await scout.ended).toMatchObject({ code: 143, errors: '' })
    expect((await analyze().ended).code).toBe(0)
    expect((await model.calls()).calls).toHaveLength(40)
  })

  test('an analysis whose job was cancelled while it waited is named, and the next run does it', async ({
    onTestFinished,
  }) => {
    const { analyze, model, database } = await setScene(2, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze({ SCOUT_CONCURRENCY: '1' })
    await model.calls(1)
    await eventually(async () => (await database.analyses()).length === 2)
    const waiting = (await database.analyses()).find(({ status }) => status === null)!
    const engine = createEngine({ url: database.url })
    onTestFinished(() => engine.stop())
    expect(await engine.cancel(waiting.job_id)).toBe('cancelled')
    await model.release()
    const { code, output } = await scout.ended
    expect(code).toBe(1)
    expect(output).toContain(`\nfailed: ${waiting.file_name}: cancelled on request\n`)
    expect((await analyze().ended).code).toBe(0)
    expect((await model.calls()).calls).toHaveLength(2)
  })
})
