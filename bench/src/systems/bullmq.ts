import { Queue, Worker, type WorkerOptions } from 'bullmq'
import { type Settings, type System, Tally } from './system.ts'

export interface BullmqSettings extends Settings {
  /** Its own options; without them, its defaults. */
  worker?: Partial<WorkerOptions>
  /** Queues besides the first, without jobs. */
  moreQueues?: number
}

const QUEUE = 'default'

/** On Redis; the URL is the path of its socket. */
export const system: System = {
  install: async () => {},

  async open(path, { task = 'no-op', worker: options, moreQueues = 0 }: BullmqSettings) {
    const queue = new Queue(QUEUE, { connection: { path } })
    await queue.waitUntilReady()
    const acks = new Tally()
    const workers: Worker[] = []
    return {
      enqueue: (n) => queue.add(task, { n }),
      enqueueMany: (from, length) =>
        queue.addBulk(Array.from({ length }, (_, index) => ({ name: task, data: { n: from + index } }))),
      async work(handler) {
        // A worker blocks on a connection of its own.
        const connection = { path, maxRetriesPerRequest: null }
        for (let more = 0; more < moreQueues; more++) {
          workers.push(new Worker(`${QUEUE}-${more}`, async () => {}, { ...options, connection }))
        }
        const worker = new Worker<{ n: number }>(QUEUE, async (job) => handler(job.data.n), {
          ...options,
          connection,
        })
        worker.on('completed', () => acks.add())
        workers.push(worker)
        await Promise.all(workers.map((each) => each.waitUntilReady()))
      },
      done: (jobs) => acks.reaches(jobs),
      async close() {
        await Promise.all(workers.map((worker) => worker.close()))
        await queue.close()
      },
    }
  },

  async count(path) {
    const queue = new Queue(QUEUE, { connection: { path } })
    try {
      const { completed = 0, ...others } = await queue.getJobCounts()
      const live = Object.values(others).reduce((sum, count) => sum + count, 0)
      return { live, done: completed, different: null }
    } finally {
      await queue.close()
    }
  },
}
