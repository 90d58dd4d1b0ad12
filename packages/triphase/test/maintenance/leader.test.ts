import { afterAll, expect, test } from 'vitest'
import { beatOnce } from '../../src/store/heartbeat.ts'
import { type PgEngine, type Scene, sceneOf } from '../liveness/scene.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { insertProcess } from '../support/store-jobs.ts'

const HEARTBEAT_MS = 200
const BEAT = {
  running: [],
  queues: [],
  stopping: false,
  leaseMs: 4 * HEARTBEAT_MS,
  strayAfterMs: 20_000,
  lookForStrays: false,
}
const BEATING = { heartbeat: HEARTBEAT_MS, deadAfter: 3 * HEARTBEAT_MS } as const

afterAll(killWorkers)

/** Who leads, by what the engines say. */
function leadersAmong(engines: readonly PgEngine[]): Set<PgEngine> {
  const leaders = new Set<PgEngine>()
  for (const engine of engines)
    engine.telemetry.on('process:leading', ({ leading }) => {
      if (leading) leaders.add(engine)
      else leaders.delete(engine)
    })
  return leaders
}

async function leaseOf(scene: Scene): Promise<string | undefined> {
  const [lease] = await scene.rows<{ id: string }>(`SELECT process_id::text AS id FROM triphase.leader`)
  return lease?.id
}

test.concurrent('of three engines one leads, and goes on leading', async (context) => {
  const scene = await sceneOf(context)
  const engines = [1, 2, 3].map(() => scene.engine(BEATING))
  const leaders = leadersAmong(engines)
  await Promise.all(engines.map((engine) => engine.start()))
  await eventually(() => leaders.size === 1)
  const lease = await leaseOf(scene)
  await scene.beats(8)
  expect(leaders.size).toBe(1)
  expect(await leaseOf(scene)).toBe(lease)
})

test.concurrent('a leader that stops hands over at the next beat of another', async (context) => {
  const scene = await sceneOf(context)
  const first = scene.engine(BEATING)
  const leading = first.telemetry.next('process:leading')
  await first.start()
  await leading
  const others = [scene.engine(BEATING), scene.engine(BEATING)]
  const leaders = leadersAmong(others)
  await Promise.all(others.map((engine) => engine.start()))
  await scene.beats(2)
  expect(leaders.size).toBe(0)
  await first.stop()
  await scene.beats(1)
  await eventually(() => leaders.size === 1)
})

test.concurrent('a leader that is killed is followed by another', async (context) => {
  const scene = await sceneOf(context)
  const victim = await scene.process(BEATING)
  await victim.event('process:leading')
  const others = [scene.engine(BEATING), scene.engine(BEATING)]
  const leaders = leadersAmong(others)
  await Promise.all(others.map((engine) => engine.start()))
  await scene.beats(2)
  expect(await leaseOf(scene)).toBe(victim.processId)
  expect(leaders.size).toBe(0)
  victim.kill('SIGKILL')
  await eventually(() => leaders.size === 1)
  await scene.beats(3)
  expect(leaders.size).toBe(1)
})

test.concurrent('the lease of a process that is no more binds nobody, though the clock was set back since', async (context) => {
  const scene = await sceneOf(context)
  const lease = (processId: string) =>
    scene.rows(
      `INSERT INTO triphase.leader (name, process_id, expires_at)
       VALUES ('maintenance', $1, clock_timestamp() + interval '1 day')
       ON CONFLICT (name) DO UPDATE SET process_id = excluded.process_id, expires_at = excluded.expires_at`,
      [processId],
    )
  const living = await insertProcess(scene.schema.database)
  const beat = async () => (await beatOnce(scene.schema.database, { ...BEAT, processId: living })).leads
  const other = await insertProcess(scene.schema.database)
  await lease(other)
  expect(await beat()).toBe(false)
  await scene.rows(`DELETE FROM triphase.process WHERE id = $1`, [other])
  expect(await beat()).toBe(true)
  expect(await leaseOf(scene)).toBe(living)
})

test.concurrent('a leader that was asleep learns that another leads', async (context) => {
  const scene = await sceneOf(context)
  const sleeper = await scene.process(BEATING)
  await sleeper.event('process:leading', ({ leading }) => leading)
  const other = scene.engine(BEATING)
  const leaders = leadersAmong([other])
  await other.start()
  sleeper.kill('SIGSTOP')
  await eventually(() => leaders.size === 1)
  const lease = await leaseOf(scene)
  sleeper.kill('SIGCONT')
  await sleeper.event('process:leading', ({ leading }) => !leading)
  await scene.beats(5)
  expect(await leaseOf(scene)).toBe(lease)
})

test.concurrent('the leader prunes, the others do not', async (context) => {
  const scene = await sceneOf(context)
  await scene.rows(`CREATE TABLE triphase.job_history_20200101 PARTITION OF triphase.job_history
    FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')`)
  const engines = [1, 2, 3].map(() => scene.engine(BEATING))
  const leaders = leadersAmong(engines)
  const pruned: PgEngine[] = []
  for (const engine of engines) engine.telemetry.on('history:pruned', () => pruned.push(engine))
  const first = Promise.race(engines.map((engine) => engine.telemetry.next('history:pruned')))
  await Promise.all(engines.map((engine) => engine.start()))
  expect(await first).toMatchObject({ partitionsDropped: 1, postponed: 0 })
  await scene.beats(5)
  expect(pruned).toEqual([...leaders])
})
