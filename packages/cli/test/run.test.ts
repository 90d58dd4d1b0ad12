import { existsSync } from 'node:fs'
import { beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../triphase/test/support/processes.ts'
import { EXIT } from '../src/index.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('run')
beforeEach(() => scene.fill(60))

/** Runs a program on a pseudo terminal (util-linux; macOS has another of this name). */
const SCRIPT = '/usr/bin/script'
const NO_SCRIPT = process.platform !== 'linux' || !existsSync(SCRIPT)

const run = ['sweep', 'describe', 'run'] as const

function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

describe('a run', () => {
  test('goes through all records, says how far it is in lines, and ends with 0', async () => {
    const { code, stdout, stderr } = await scene.run(...run)
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^describe: completed: 60 of 60 records/m)
    expect(stdout).toMatch(/\ndescribe: completed: 60 done, 0 errors in .+, 60 calls, 30 spent\n$/)
    expect(code).toBe(EXIT.ok)
    expect(scene.api.calls).toBe(60)
    expect(await scene.counts()).toEqual({ done: 60 })
  })

  test('says it as a JSON line for each change', async () => {
    const { code, stdout, stderr } = await scene.run(...run, '--json')
    const lines = jsonLines(stdout)
    expect([code, stderr]).toEqual([EXIT.ok, ''])
    expect(lines.length).toBeGreaterThan(1)
    expect(lines.at(-1)).toEqual({
      sweep: 'describe',
      runId: expect.stringMatching(/^\d+$/),
      state: 'completed',
      reason: null,
      total: 60,
      totalEstimated: false,
      done: 60,
      errors: 0,
      calls: 60,
      spent: 30,
      slots: 0,
      concurrency: 4,
      rate: null,
      budget: { calls: null, spend: null },
      recordsPerSecond: null,
      etaMs: null,
      activeMs: expect.any(Number),
      slowMs: 0,
      createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
      startedAt: expect.stringMatching(/Z$/),
      finishedAt: expect.stringMatching(/Z$/),
    })
  })

  test('ends with another code when it marked errors, and says what to do', async () => {
    scene.api.behave({ kind: 'error', status: 422 }, { key: '7' })
    const { code, stdout, stderr } = await scene.run(...run)
    expect(code).toBe(EXIT.recordErrors)
    expect(stdout).toMatch(/59 done, 1 error in/)
    expect(stderr).toContain('triphase sweep describe retry-errors --all')
  })

  test('that has nothing to do is over at once', async () => {
    await scene.fill(0)
    expect(await scene.run(...run)).toMatchObject({
      code: EXIT.ok,
      stdout: expect.stringContaining('0 of 0 records'),
    })
  })

  test('that pauses itself ends with another code, and stays paused until it is resumed', async () => {
    scene.api.behave({ kind: 'error', status: 503 })
    const { code, stdout, stderr } = await scene.run(...run)
    expect(code).toBe(EXIT.paused)
    expect(stdout).toMatch(/\ndescribe: paused \(\d+ calls failed in a row\): /)
    expect(stderr).toContain('Go on with: triphase sweep describe resume, then triphase sweep describe run.')
    scene.api.reset()
    expect(await scene.run(...run)).toMatchObject({ code: EXIT.paused })
    expect(scene.api.calls).toBe(0)
    expect((await scene.run('sweep', 'describe', 'resume')).stderr).toContain('No process works on it')
    expect((await scene.run(...run)).code).toBe(EXIT.recordErrors)
  })

  test('takes limits, and is over at its budget', async () => {
    const { code, stdout } = await scene.run(...run, '--concurrency', '2', '--budget-calls', '10')
    expect(code).toBe(EXIT.paused)
    expect(stdout).toContain('the budget of 10 calls is used up')
    expect(scene.api.calls).toBe(10)
    expect(await scene.control.status()).toMatchObject({ concurrency: 2, budget: { calls: 10, spend: null } })
  })

  test('that fails ends with another code', async () => {
    const held = scene.api.hold()
    const running = scene.start(run)
    await eventually(() => scene.api.calls > 0)
    await scene.pool.query(`ALTER TABLE ${scene.table} RENAME COLUMN result TO gone`)
    try {
      void held.release()
      const { code, stdout } = await running.ended
      expect(stdout).toMatch(/\ndescribe: failed \(.*result.*\): /)
      expect(code).toBe(EXIT.notCompleted)
    } finally {
      await scene.pool.query(`ALTER TABLE ${scene.table} RENAME COLUMN gone TO result`)
    }
  })

  test('works on the queue of its sweep where the config has none', async () => {
    const { code } = await scene.start(run, { env: { TEST_QUEUES: 'none' } }).ended
    expect(code).toBe(EXIT.ok)
  })

  test('that was killed goes on, and calls nothing twice but what was under way', async () => {
    scene.api.behave({ kind: 'answer', afterMs: 20 })
    const first = scene.start(run)
    await eventually(() => scene.api.calls > 20)
    await first.kill()
    expect(await scene.control.status()).toMatchObject({ done: expect.any(Number), total: 60 })
    const { code, stdout } = await scene.run(...run)
    expect(code).toBe(EXIT.ok)
    expect(stdout).toMatch(/60 done, 0 errors/)
    expect(scene.api.calls).toBeLessThanOrEqual(64)
    expect(await scene.counts()).toEqual({ done: 60 })
  })

  test('that is only asked for is done by a worker', async () => {
    const asked = await scene.run(...run, '--detach')
    expect(asked).toMatchObject({ code: EXIT.ok, stdout: expect.stringMatching(/^describe: interrupted\n/) })
    expect(asked.stderr).toContain('No process works on its queue (default) at the moment: triphase work')
    expect(scene.api.calls).toBe(0)
    const worker = scene.start(['work'])
    const followed = await scene.run('sweep', 'describe', 'status', '--follow')
    expect(followed).toMatchObject({ code: EXIT.ok, stdout: expect.stringMatching(/60 done, 0 errors/) })
    worker.signal('SIGTERM')
    expect(await worker.ended).toMatchObject({ code: EXIT.ok })
  })
})

describe('progress', () => {
  test.skipIf(NO_SCRIPT)('is a bar on a terminal, drawn over itself', async () => {
    scene.api.behave({ kind: 'answer', afterMs: 30 })
    const line = 'stty cols 100 rows 30; eval "$TRIPHASE sweep describe run"'
    const { code, stdout } = await scene.start([], {
      through: [SCRIPT, '-qec', line, '/dev/null'],
    }).ended
    expect(stdout).toMatch(/█+░+ {2}\d+% {2}\d+ of 60 records/)
    expect(stdout).toMatch(/█{30} {2}100% {2}60 of 60 records/)
    expect(stdout).toContain('\u001b[1A')
    // The cursor is never hidden: whoever is killed could not show it again.
    expect(stdout).not.toContain('\u001b[?25l')
    expect(stdout).toMatch(/describe: completed: 60 done, 0 errors/)
    expect(code).toBe(EXIT.ok)
  })

  test('can be a bar, lines or nothing anywhere', async () => {
    const bar = await scene.run(...run, '--progress', 'bar')
    expect(bar.stdout).toContain('█'.repeat(30))
    const nothing = await scene.run(...run, '--progress', 'none')
    expect(nothing.stdout.split('\n')).toHaveLength(2)
  })
})

describe('a pipe that is closed', () => {
  test('stops a run quietly, and the run can be gone on with', async () => {
    scene.api.behave({ kind: 'answer', afterMs: 100 })
    const line = 'set -o pipefail; eval "$TRIPHASE sweep describe run --json" | head -1'
    const { code, stdout, stderr } = await scene.start([], { through: ['bash', '-c', line] }).ended
    expect(stderr).toBe('')
    expect(jsonLines(stdout)).toHaveLength(1)
    expect(code).toBe(EXIT.outputClosed)
    expect(await scene.control.status()).toMatchObject({ state: 'interrupted', slots: 0 })
    expect((await scene.run(...run)).code).toBe(EXIT.ok)
    expect(scene.api.calls).toBe(60)
  })

  test('ends what only looks', async () => {
    const held = scene.api.hold()
    const running = scene.start(run)
    await eventually(() => scene.api.calls > 0)
    const looking = scene.start(['sweep', 'describe', 'status', '--follow', '--json'])
    await looking.says(/running/)
    looking.closeOutput()
    void held.release()
    expect(await looking.ended).toMatchObject({ stderr: '' })
    expect((await running.ended).code).toBe(EXIT.ok)
  })
})
