import { describe, expect, test } from 'vitest'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import { type Scene, setScene } from '../support/scene.ts'

async function analysed(images: number, whenFinished: Parameters<typeof setScene>[1]): Promise<Scene> {
  const scene = await setScene(images, whenFinished)
  expect((await scene.analyze().ended).code).toBe(0)
  return scene
}

/** The number of the call that each capture's observation came from; one observation each. */
async function sources({ database }: Scene): Promise<number[]> {
  const rows = await database.analyses()
  for (const row of rows) expect(row).toMatchObject({ status: 'completed', analyses: 1 })
  return rows.map(({ observations }) => {
    expect(observations).toHaveLength(1)
    return Number(observations[0]!.text?.replace('call ', ''))
  })
}

describe.concurrent('backfill', () => {
  test('describes every capture again, with a new prompt, and once more when it is asked to', async ({
    onTestFinished,
  }) => {
    const scene = await analysed(6, onTestFinished)
    const first = await scene.scout(['backfill', '--prompt', 'Count the birds.']).ended
    expect(first).toMatchObject({ code: 0, errors: '' })
    expect(first.output).toMatch(/^6 captures, 6 to describe, model compatible:test, database /)
    expect(first.output).toMatch(/\n6 of 6 captures(, [\d.]+ a second)?\n/)
    expect(first.output).toMatch(/\n6 captures: 6 described again, in \d+ s\. See scout\.observation\.\n$/)
    expect((await sources(scene)).every((call) => call > 6)).toBe(true)
    expect((await scene.model.calls()).calls).toHaveLength(12)
    const { rows } = await scene.database.pool.query(`SELECT profile->>'prompt' AS prompt FROM scout.camera`)
    expect(rows).toEqual([{ prompt: 'Count the birds.' }])
    expect((await scene.scout(['backfill']).ended).code).toBe(0)
    expect((await sources(scene)).every((call) => call > 12)).toBe(true)
    expect((await scene.model.calls()).calls).toHaveLength(18)
  })

  test('killed in the middle of its calls it makes those again, and no other', async ({ onTestFinished }) => {
    const scene = await analysed(12, onTestFinished)
    await scene.model.behave({ behaviour: { kind: 'answer' }, times: 5 }, { behaviour: { kind: 'hold' } })
    const killed = scene.scout(['backfill'], { SCOUT_CONCURRENCY: '3' })
    await scene.model.calls(12 + 5 + 3)
    await marked(scene, 5)
    await killed.kill()
    await scene.database.sessionsEnded()
    await scene.model.behave()
    // Analyses have nothing to do with it.
    expect((await scene.analyze().ended).output).not.toContain('Unfinished')
    const again = await scene.scout(['backfill'], { SCOUT_CONCURRENCY: '3' }).ended
    expect(again).toMatchObject({ code: 0, errors: '' })
    expect(again.output).toContain('12 captures, 7 to describe')
    expect(again.output).toContain('12 captures: 12 described again')
    expect((await scene.model.calls()).calls).toHaveLength(12 + 12 + 3)
    expect((await sources(scene)).every((call) => call > 12)).toBe(true)
  })

  test('a capture of which it fails keeps its observations, and is tried again when asked to', async ({
    onTestFinished,
  }) => {
    const scene = await analysed(4, onTestFinished)
    const [before] = await sources(scene)
    const imageHash = await scene.sentHash('00.jpg')
    await scene.model.behave({ imageHash, behaviour: { kind: 'status', status: 400 } })
    const failed = await scene.scout(['backfill']).ended
    expect(failed).toMatchObject({ code: 1, errors: '' })
    expect(failed.output).toContain(
      '4 captures: 3 described again, 1 failed, which keep what was observed before, in ',
    )
    expect(failed.output).toMatch(/\n1 x The model's server answered 400.*\n.* --retry-errors /)
    expect((await sources(scene))[0]).toBe(before)
    await scene.model.behave()
    const retried = await scene.scout(['backfill', '--retry-errors']).ended
    expect(retried).toMatchObject({ code: 0, errors: '' })
    expect(retried.output).toContain('Tries 1 error again.\n')
    expect((await sources(scene))[0]).toBe(9)
    expect((await scene.model.calls()).calls).toHaveLength(9)
  })

  test('two at a time share the work', async ({ onTestFinished }) => {
    const scene = await analysed(10, onTestFinished)
    await scene.model.behave({ behaviour: { kind: 'answer', delayMs: 50 } })
    const both = [scene.scout(['backfill']), scene.scout(['backfill'])]
    await eventually(async () => (await scene.model.calls()).calls.length > 10)
    for (const one of both) expect(await one.ended).toMatchObject({ errors: '' })
    const { rows } = await scene.database.pool.query(
      `SELECT count(*)::int AS n FROM scout.capture WHERE backfill_status = 'done'`,
    )
    expect(rows).toEqual([{ n: 10 }])
  })

  test('Ctrl-C lets its calls finish, and the same command goes on', async ({ onTestFinished }) => {
    const scene = await analysed(6, onTestFinished)
    await scene.model.behave({ behaviour: { kind: 'hold' } })
    const scout = scene.scout(['backfill'], { SCOUT_CONCURRENCY: '2' })
    await scene.model.calls(8)
    scout.signal('SIGINT')
    await scout.says(/^Stopping: calls under way get 10 s/m)
    await scene.model.release()
    const { code, output, errors } = await scout.ended
    expect({ code, errors }).toEqual({ code: 130, errors: '' })
    expect(output).toMatch(
      /\nStopped with [2-6] of 6 captures done\. Run the same command again (for the rest|to see the results)\.\n$/,
    )
    expect((await scene.scout(['backfill']).ended).code).toBe(0)
    expect((await scene.model.calls()).calls).toHaveLength(12)
  })

  test('another prompt in the middle begins anew', async ({ onTestFinished }) => {
    const scene = await analysed(4, onTestFinished)
    await scene.model.behave({ behaviour: { kind: 'answer' }, times: 2 }, { behaviour: { kind: 'hold' } })
    const killed = scene.scout(['backfill', '--prompt', 'one'], { SCOUT_CONCURRENCY: '1' })
    await scene.model.calls(4 + 3)
    await killed.kill()
    await scene.model.behave()
    const other = await scene.scout(['backfill', '--prompt', 'two']).ended
    expect(other).toMatchObject({ code: 0, errors: '' })
    expect(other.output).toContain(
      'The prompt has changed: what was described with the old one is described again.',
    )
    expect((await sources(scene)).every((call) => call > 7)).toBe(true)
  })

  test('without captures there is nothing to do', async ({ onTestFinished }) => {
    const scene = await setScene(0, onTestFinished)
    const { code, output } = await scene.scout(['backfill']).ended
    expect([code, output]).toEqual([
      0,
      'Nothing to describe: no image has been analysed. Analyse some first.\n',
    ])
  })
})

/** Resolves when so many captures are marked. */
async function marked({ database }: Scene, count: number): Promise<void> {
  await eventually(async () => {
    const { rows } = await database.pool.query(
      `SELECT FROM scout.capture WHERE backfill_id > 0 AND backfill_status = 'done'`,
    )
    return rows.length >= count
  })
}
