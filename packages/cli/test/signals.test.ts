import { beforeEach, expect, test } from 'vitest'
import { eventually } from '../../triphase/test/support/processes.ts'
import { EXIT } from '../src/index.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('signals')
beforeEach(() => scene.fill(30))

const run = ['sweep', 'describe', 'run'] as const

test.each([
  ['SIGINT', EXIT.interrupted],
  ['SIGTERM', EXIT.terminated],
] as const)('at %s a run lets its calls finish, marks them, and says how to go on', async (signal, code) => {
  const held = scene.api.hold()
  const running = scene.start(run)
  await eventually(() => scene.api.calls === 4)
  running.signal(signal)
  await running.says(/^Stopping: calls under way may finish/m)
  void held.release()
  const ended = await running.ended
  expect(ended).toMatchObject({ code, signal: null })
  expect(ended.stderr).toContain('Go on with: triphase sweep describe run.')
  const { done } = await scene.control.status()
  expect(done).toBeGreaterThanOrEqual(4)
  expect(await scene.counts()).toEqual({ done, pending: 30 - done })
  expect((await scene.run(...run)).code).toBe(EXIT.ok)
  expect(await scene.counts()).toEqual({ done: 30 })
})

test('with --json nothing but JSON is said, also when it is stopped', async () => {
  const held = scene.api.hold()
  const running = scene.start([...run, '--json'])
  await eventually(() => scene.api.calls === 4)
  running.signal('SIGINT')
  // It is told of the stop when its page is to begin no more calls.
  await eventually(async () => {
    const { rows } = await scene.pool.query(`SELECT FROM ${scene.schema}.process WHERE stopping`)
    expect(rows).toHaveLength(1)
  })
  void held.release()
  const { code, stdout, stderr } = await running.ended
  expect(code).toBe(EXIT.interrupted)
  for (const line of `${stdout}${stderr}`.trim().split('\n'))
    expect(() => JSON.parse(line), line).not.toThrow()
})

test('a second Ctrl-C ends it at once, and nothing is lost', async () => {
  scene.api.hold()
  const running = scene.start(run)
  await eventually(() => scene.api.calls === 4)
  running.signal('SIGINT')
  await running.says(/^Stopping/m)
  // What follows at once is the same key press, as it comes from npm.
  await eventually(() => !running.signal('SIGINT'), { interval: 100 })
  expect(await running.ended).toMatchObject({ code: EXIT.interrupted, signal: null })
  scene.api.reset()
  expect((await scene.run(...run)).code).toBe(EXIT.ok)
  expect(await scene.counts()).toEqual({ done: 30 })
})

test('calls that do not finish in time are aborted, and called again by the next run', async () => {
  scene.api.behave({ kind: 'hang' })
  const running = scene.start(run, { env: { TEST_GRACE: '300ms' } })
  await eventually(() => scene.api.calls === 4)
  running.signal('SIGINT')
  expect(await running.ended).toMatchObject({ code: EXIT.interrupted })
  await eventually(() => expect(scene.api.aborted).toBe(4))
  expect(await scene.counts()).toEqual({ pending: 30 })
  scene.api.reset()
  expect((await scene.run(...run)).code).toBe(EXIT.ok)
  expect(scene.api.calls).toBe(30)
})

test
  .skipIf(process.platform !== 'linux')
  .each([['--help'], ['sweep describe plan'], ['sweep describe run --progress lines']])(
  '%s says when its output cannot be written',
  async (command) => {
    const full = scene.start([], { through: ['bash', '-c', `eval "exec $TRIPHASE ${command}" > /dev/full`] })
    expect(await full.ended).toMatchObject({
      code: EXIT.unexpected,
      stderr: expect.stringMatching(
        /^OUTPUT_FAILED: .*no space left on device, write\. Free space, or send it elsewhere/m,
      ),
    })
  },
)

test('a worker that is told to stop stops, and that is no error', async () => {
  const worker = scene.start(['work', '--json'])
  await worker.says(/"event":"process:started"/)
  worker.signal('SIGTERM')
  const { code, stdout, stderr } = await worker.ended
  expect([code, stderr]).toEqual([EXIT.ok, ''])
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).event)
  expect(events).toEqual(expect.arrayContaining(['process:started', 'process:stopping', 'process:stopped']))
})

test('a worker without queues says so', async () => {
  const { code, stderr } = await scene.start(['work'], { env: { TEST_QUEUES: 'none' } }).ended
  expect(stderr).toMatch(/^NO_QUEUES: .*queues: \{ default: 4 \}/)
  expect(code).toBe(EXIT.config)
})
