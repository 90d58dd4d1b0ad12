import { afterAll, describe, expect, it } from 'vitest'
import { eventually, killWorkers, spawnWorker, type WorkerProcess } from './processes.ts'

function fixture(...args: string[]): WorkerProcess {
  return spawnWorker(new URL('./worker.fixture.ts', import.meta.url), {
    args,
    env: { FIXTURE_VALUE: 'a value' },
  })
}

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

afterAll(killWorkers)

describe('spawnWorker', () => {
  it('gives lines, stderr and the exit', async () => {
    const worker = fixture('print', 'now')
    expect((await worker.waitForLine(/^ready (\w+)/))[1]).toBe('now')
    expect((await worker.waitForLine(/last/)).input).toBe('last, without a line end')
    expect((await worker.waitForLine(/second/))[0]).toBe('second')
    expect(await worker.exited).toEqual({ code: 3, signal: null })
    expect(worker.lines).toEqual(['ready now', 'second line', 'last, without a line end'])
    await eventually(() => expect(worker.stderr).toBe('on stderr, with a value\n'))
  })

  it("runs from the workspace's sources", async () => {
    await fixture('conditions').waitForLine(/--conditions=triphase-source/)
  })

  it('fails when the process ends without the line, and shows what it printed', async () => {
    const waiting = fixture('print', 'x').waitForLine(/never/)
    await expect(waiting).rejects.toThrow(
      /ended without a line that matches \/never\/.*second line.*on stderr/s,
    )
  })

  it('fails when the line does not come in time', async () => {
    const worker = fixture('wait')
    await worker.waitForLine(/waiting/)
    await expect(worker.waitForLine(/never/, 50)).rejects.toThrow('matches /never/ in 50 ms')
  })

  it('kills by a signal that may be handled, or for good', async () => {
    const [asked, killed] = [fixture('wait'), fixture('wait')]
    await Promise.all([asked, killed].map((worker) => worker.waitForLine(/waiting/)))
    expect(asked.kill('SIGTERM')).toBe(true)
    await asked.waitForLine(/asked to stop/)
    expect(await asked.exited).toEqual({ code: 0, signal: null })
    expect(asked.kill()).toBe(false)
    killed.kill()
    expect(await killed.exited).toEqual({ code: null, signal: 'SIGKILL' })
  })

  it('leaves no process behind', async () => {
    const workers = [fixture('wait'), fixture('wait')]
    const [one, other] = workers
    await one!.dispose()
    expect([runs(one!.pid), runs(other!.pid)]).toEqual([false, true])
    await killWorkers()
    expect(workers.map(({ pid }) => runs(pid))).toEqual([false, false])
  })
})

describe('eventually', () => {
  it('returns the first value that is true', async () => {
    let tries = 0
    expect(await eventually(() => ++tries > 2 && `after ${tries}`, { interval: 1 })).toBe('after 3')
  })

  it('waits for an assertion to pass', async () => {
    let tries = 0
    const third = () => {
      tries += 1
      expect(tries).toBe(3)
    }
    await eventually(third, { interval: 1 })
    expect(tries).toBe(3)
  })

  it('fails with the last error', async () => {
    let tries = 0
    const failing = eventually(
      () => {
        throw new Error(`try ${++tries}`)
      },
      { timeout: 50, interval: 1 },
    )
    const message = await failing.catch((error: Error) => error.message)
    expect(message).toBe(`try ${tries}`)
  })

  it('fails when the value stays false, or never comes', async () => {
    const options = { timeout: 30, interval: 1 }
    await expect(eventually(() => 0, options)).rejects.toThrow('Still 0 after 30 ms')
    await expect(eventually(() => new Promise(() => {}), options)).rejects.toThrow('did not settle in 30 ms')
  })
})
