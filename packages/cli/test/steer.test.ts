import { beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../triphase/test/support/processes.ts'
import { EXIT } from '../src/index.ts'
import type { CliProcess } from './support/cli-process.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('steer')
beforeEach(() => scene.fill(40))

const sweep = (...args: string[]) => scene.run('sweep', 'describe', ...args)

/** A run in another process, with calls under way that wait to be released. */
async function running(...args: string[]): Promise<{ first: CliProcess; release: () => void }> {
  const held = scene.api.hold()
  const first = scene.start(['sweep', 'describe', 'run', ...args])
  await eventually(() => scene.api.calls > 0)
  return { first, release: () => void held.release() }
}

describe('from a second terminal', () => {
  test('status shows what the first sees, once or as it goes on', async () => {
    const { first, release } = await running()
    const once = await sweep('status')
    expect(once).toMatchObject({ code: EXIT.ok, stderr: '' })
    expect(once.stdout).toMatch(
      /^describe: running\n {2}0 of 40 records\n.* under way\n {2}limits: 4 at a time\n$/s,
    )
    const following = scene.start(['sweep', 'describe', 'status', '--follow'])
    await following.says(/running/)
    release()
    expect((await following.ended).stdout).toMatch(/completed: 40 done, 0 errors/)
    expect((await following.ended).code).toBe(EXIT.ok)
    expect((await first.ended).code).toBe(EXIT.ok)
    expect((await scene.json('sweep', 'describe', 'status')).value).toMatchObject({
      sweep: 'describe',
      done: 40,
    })
  })

  test('pause ends the run there when its calls are marked', async () => {
    const { first, release } = await running()
    const paused = await sweep('pause', '--reason', 'lunch')
    expect(paused).toMatchObject({
      code: EXIT.ok,
      stdout: expect.stringMatching(/^describe: pausing \(lunch\)\n/),
    })
    expect(paused.stderr).toContain('triphase sweep describe resume')
    release()
    expect(await first.ended).toMatchObject({
      code: EXIT.paused,
      stdout: expect.stringMatching(/\ndescribe: paused \(lunch\): \d+ done, 0 errors/),
    })
    const { done, slots } = await scene.control.status()
    expect([(await scene.counts()).done, slots]).toEqual([done, 0])
    const again = await scene.json('sweep', 'describe', 'pause')
    expect(again).toMatchObject({ code: EXIT.ok, value: { state: 'paused', reason: 'lunch' } })
  })

  test('a run that waits goes on when it is resumed', async () => {
    const { first, release } = await running('--wait')
    await sweep('pause')
    release()
    await first.says(/describe: paused/)
    expect(await sweep('resume')).toMatchObject({
      code: EXIT.ok,
      stdout: expect.stringMatching(/^describe: running/),
    })
    expect(await first.ended).toMatchObject({
      code: EXIT.ok,
      stdout: expect.stringMatching(/40 done, 0 errors/),
    })
  })

  test('cancel ends it, and the next run does the rest', async () => {
    const { first, release } = await running()
    const cancelled = await scene.json('sweep', 'describe', 'cancel', '--reason', 'wrong model')
    expect(cancelled).toMatchObject({ code: EXIT.ok, value: { state: 'cancelled', reason: 'wrong model' } })
    release()
    expect(await first.ended).toMatchObject({
      code: EXIT.notCompleted,
      stdout: expect.stringMatching(/describe: cancelled \(wrong model\)/),
    })
    expect((await sweep('cancel')).code).toBe(EXIT.ok)
    expect((await sweep('run')).code).toBe(EXIT.ok)
    expect(await scene.counts()).toEqual({ done: 40 })
  })

  test('change changes limits while it works, and takes them away', async () => {
    const { first, release } = await running()
    await eventually(async () => expect(await scene.control.status()).toMatchObject({ slots: 4 }))
    const limits = ['--concurrency', '9', '--rate', '50', '--budget-calls', '100', '--budget-spend', '99.5']
    const changed = await sweep('change', ...limits)
    expect(changed).toMatchObject({ code: EXIT.ok, stderr: '' })
    expect(changed.stdout).toMatch(
      /limits: 9 at a time, 50 a second, at most 100 calls, at most 99\.5 spent\n$/,
    )
    await eventually(() => scene.api.calls === 9)
    const { value } = await scene.json(
      ...[
        'sweep',
        'describe',
        'change',
        '--rate',
        'none',
        '--budget-calls',
        'none',
        '--budget-spend',
        'none',
      ],
    )
    expect(value).toMatchObject({ concurrency: 9, rate: null, budget: { calls: null, spend: null } })
    release()
    expect((await first.ended).code).toBe(EXIT.ok)
  })
})

describe('what the state does not allow is refused', () => {
  test.each([
    ['status'],
    ['status', '--follow'],
    ['pause'],
    ['resume'],
    ['cancel'],
    ['change', '--rate', '1'],
  ])('%s before the first run', async (...args) => {
    const { code, stdout, stderr } = await sweep(...args)
    expect(stderr).toMatch(/^NO_SWEEP_RUN: .*triphase sweep describe run\.\n$/)
    expect([code, stdout]).toEqual([EXIT.refused, ''])
  })

  test('after the last', async () => {
    expect((await sweep('run')).code).toBe(EXIT.ok)
    for (const args of [['pause'], ['resume'], ['cancel'], ['change', '--rate', '1']]) {
      const { code, stdout, stderr } = await sweep(...args)
      expect(stderr).toMatch(/^RUN_STATE: describe: completed: it cannot be \w+\./)
      expect([code, stdout]).toEqual([EXIT.refused, ''])
    }
    expect((await sweep('status')).stdout).toMatch(/^describe: completed\n/)
  })
})
