import type { BullmqSettings } from './bullmq.ts'
import type { Contestant } from './contestant.ts'
import type { FloorSettings } from './floor.ts'
import type { GraphileWorkerSettings } from './graphile-worker.ts'
import type { PgBossSettings } from './pg-boss.ts'
import type { TriphaseSettings } from './triphase.ts'

export const triphase = (name: string, settings: TriphaseSettings): Contestant => ({
  name: `triphase${name && `, ${name}`}`,
  system: 'triphase',
  settings,
})
export const floor = (name: string, settings: FloorSettings): Contestant => ({
  name: `floor${name && `, ${name}`}`,
  system: 'floor',
  settings,
})
export const graphileWorker = (name: string, settings: GraphileWorkerSettings): Contestant => ({
  name: `graphile-worker${name && `, ${name}`}`,
  system: 'graphile-worker',
  settings,
})
export const pgBoss = (name: string, settings: PgBossSettings): Contestant => ({
  name: `pg-boss${name && `, ${name}`}`,
  system: 'pg-boss',
  settings,
})
export const bullmq = (name: string, settings: BullmqSettings): Contestant => ({
  name: `BullMQ${name && `, ${name}`}`,
  system: 'bullmq',
  settings,
})

/** With default settings, apart from the concurrency, which has no default. */
export const triphaseAt = (concurrency: number): Contestant =>
  triphase(`concurrency ${concurrency}`, { engine: { queues: { default: concurrency } } })

/** With `retention` 0: completed jobs leave nothing behind, as with graphile-worker and BullMQ's `removeOnComplete`. */
export const triphaseForgetting = (concurrency: number): Contestant =>
  triphase(`concurrency ${concurrency}, retention 0`, {
    engine: { queues: { default: concurrency }, retention: 0 },
    history: false,
  })

// For throughput, as their documentation has it: the settings of graphile-worker's own performance test; pg-boss in
// batches that follow each other without a pause, with several workers; BullMQ with its concurrency raised.
export const BEST_GRAPHILE_WORKER = graphileWorker('best', {
  worker: {
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
})
export const BEST_PG_BOSS = pgBoss('best', {
  work: { batchSize: 500, localConcurrency: 4, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 },
})
export const BEST_BULLMQ = bullmq('best', { worker: { concurrency: 100 } })
